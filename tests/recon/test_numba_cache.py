"""numba's cache goes where it can be written, and never where others can."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from recon.numba_cache import VARIABLE, choose_cache_folder


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing can be written, whoever asks."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "tmp").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "closed"


def test_nothing_is_set_where_numba_can_write_by_itself(closed: Path, tmp_path: Path) -> None:
    for package, home in ((tmp_path, closed), (closed, tmp_path)):
        environment = {"HOME": str(home)}
        choose_cache_folder(package, environment)
        assert VARIABLE not in environment
    environment = {"HOME": str(closed), VARIABLE: "/mine"}
    choose_cache_folder(closed, environment)
    assert environment[VARIABLE] == "/mine"


def test_a_folder_of_the_user_alone_is_made_and_found_again(closed: Path) -> None:
    environments: list[dict[str, str]] = [{"HOME": str(closed)}, {"HOME": str(closed)}]
    for environment in environments:
        choose_cache_folder(closed, environment)
    first, second = (Path(environment[VARIABLE]) for environment in environments)
    assert first == second
    assert first.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_not_taken(closed: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "tmp" / f"im3d-numba-{os.getuid()}"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    environment = {"HOME": str(closed)}
    choose_cache_folder(closed, environment)
    assert environment[VARIABLE] != str(theirs)
    assert Path(environment[VARIABLE]).stat().st_mode & 0o777 == 0o700


def test_it_happens_before_kernels_are_compiled() -> None:
    code = (
        "import os, recon; import numba.core.config as c; print(c.CACHE_DIR == os.environ.get('NUMBA_CACHE_DIR', ''))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
