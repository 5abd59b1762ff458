"""A folder's digest: over its files, and remembered while they stay as they are."""

import hashlib
import os
from pathlib import Path

import pytest

from model import digests


def test_large_files_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(digests, "_LARGE", 100)
    reads, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda stream, kind: (reads.append(stream.name), digest(stream, kind))[1]
    )
    folder = tmp_path / "model"
    folder.mkdir()
    large, small = folder / "large.safetensors", folder / "small.safetensors"
    large.write_bytes(b"x" * 200)
    small.write_bytes(b"y")
    first = digests.revision_of(folder)
    parts = [f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest() for file in (large, small)]
    assert first == f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"
    assert digests.revision_of(folder) == first
    assert reads == [str(large), str(small), str(small)]
    large.write_bytes(b"z" * 200)  # as large as before
    os.utime(large, ns=(1, 1))
    assert digests.revision_of(folder) != first
    large.write_bytes(b"x" * 200)
    os.utime(large, ns=(2, 2))
    assert digests.revision_of(folder) == first


def test_a_cache_that_cannot_be_written_or_read_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_LARGE", 0)
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"x")
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(digests, "CACHE", tmp_path / "cache")
    assert digests.file_digest(file) == hashlib.sha256(b"x").hexdigest()
    monkeypatch.setattr(digests, "CACHE", tmp_path / "other")
    digests.file_digest(file)
    note = next((tmp_path / "other" / "digests").iterdir())
    note.write_text("{broken")
    assert digests.file_digest(file) == hashlib.sha256(b"x").hexdigest()
