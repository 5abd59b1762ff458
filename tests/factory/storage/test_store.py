"""Files in a folder: atomic, create-if-absent, never outside the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.storage.local import LocalStore
from factory.storage.store import open_store


def test_create_never_replaces_and_put_does(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert store.create("a/b.txt", b"one")
    assert not store.create("a/b.txt", b"two")
    assert store.get("a/b.txt") == b"one"
    store.put("a/b.txt", b"three")
    assert (tmp_path / "a/b.txt").read_bytes() == b"three"
    assert not list((tmp_path / ".tmp").iterdir())


def test_keys_are_sorted_and_below_their_folder(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for key in ("b/2", "b/1", "a/x", "bb/3", "b/c/4"):
        store.put(key, b"")
    assert list(store.keys("b/")) == ["b/1", "b/2", "b/c/4"]
    assert list(store.keys("none/")) == []


def test_missing_objects(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with pytest.raises(KeyError):
        store.get("none")
    store.delete("none")


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    (tmp_path / "a").write_text("a file where a folder is wanted")
    with pytest.raises(OSError):
        store.put("a/b", b"data")
    assert {p.name for p in tmp_path.iterdir()} <= {"a", ".tmp"}
    assert (tmp_path / "a").read_text().startswith("a file")


def test_sweep_removes_half_written_files_only(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("kept", b"x")
    (tmp_path / ".tmp/half").write_bytes(b"h")
    store.sweep()
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "", ".", "a\\b", "a\0b"])
def test_keys_cannot_leave_the_root(tmp_path: Path, key: str) -> None:
    store = LocalStore(str(tmp_path / "root"))
    with pytest.raises(ValueError, match="not allowed"):
        store.put(key, b"x")
    with pytest.raises(ValueError, match="not allowed"):
        store.get(key)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="Available: a local path, s3://"):
        open_store("ftp://host/folder")
