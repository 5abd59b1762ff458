"""numba's kernels go where they can be written, and are found by what they are made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from recon.numba_cache import LOCATORS, PACKAGE, VARIABLE, choose_cache_folder, digest_of

KERNEL = """
import numpy as np
from recon.fit_kernels import counted
from recon.ssim_kernels import halve
out = np.zeros(6, np.float32)
halve(np.arange(24, dtype=np.float32), (2, 12, 12), out, 6)
print(out.tolist(), *counted())
"""


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing can be written, whoever asks."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "tmp").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "closed"


def test_it_is_the_users_cache_unless_another_folder_is_named(tmp_path: Path) -> None:
    for environment, wanted in (
        ({"HOME": str(tmp_path)}, tmp_path / ".cache" / "im3d-kernels"),
        ({"HOME": "/", "XDG_CACHE_HOME": str(tmp_path)}, tmp_path / "im3d-kernels"),
        ({"HOME": "/", VARIABLE: "/mine"}, Path("/mine")),
    ):
        choose_cache_folder(environment)
        assert Path(environment[VARIABLE]) == wanted
        assert environment[LOCATORS].startswith("recon.numba_cache.SourceLocator,")


def test_a_folder_of_the_user_alone_is_made_and_found_again(closed: Path) -> None:
    environments: list[dict[str, str]] = [{"HOME": str(closed)}, {"HOME": str(closed)}]
    for environment in environments:
        choose_cache_folder(environment)
    first, second = (Path(environment[VARIABLE]) for environment in environments)
    assert first == second
    assert first.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_not_taken(closed: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "tmp" / f"im3d-numba-{os.getuid()}"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    environment = {"HOME": str(closed)}
    choose_cache_folder(environment)
    assert environment[VARIABLE] != str(theirs)
    assert Path(environment[VARIABLE]).stat().st_mode & 0o777 == 0o700


def test_it_happens_before_kernels_are_compiled() -> None:
    code = (
        "import os, recon; import numba.core.config as c; print(c.CACHE_DIR == os.environ.get('NUMBA_CACHE_DIR', ''))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_it_holds_for_a_numba_that_was_imported_before(tmp_path: Path) -> None:
    code = "import numba, recon; from recon.ssim_kernels import halve; print(halve._cache.cache_path)"
    environment = {name: value for name, value in os.environ.items() if name not in (LOCATORS, VARIABLE)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert Path(done.stdout.strip()).parent == tmp_path / "im3d-kernels", done.stderr


def run_in(tree: Path, cache: Path) -> list[str]:
    """What KERNEL prints in a copy of the tree: the result, kernels found and kernels compiled."""
    environment = os.environ | {"PYTHONPATH": str(tree), VARIABLE: str(cache)}
    environment.pop(LOCATORS, None)
    done = subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, env=environment, cwd=tree)
    assert done.returncode == 0, done.stderr
    return done.stdout.rsplit(maxsplit=2)


def test_another_copy_of_the_tree_compiles_nothing_until_a_file_of_the_kernel_changes(tmp_path: Path) -> None:
    trees, cache = [tmp_path / name for name in ("one", "two")], tmp_path / "cache"
    for tree in trees:
        shutil.copytree(PACKAGE, tree / "recon", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    wanted = "[7.5, 8.5, 9.5, 13.5, 14.5, 15.5]"
    assert run_in(trees[0], cache) == [wanted, "0", "1"]
    assert run_in(trees[1], cache) == [wanted, "1", "0"]
    simd = trees[1] / "recon" / "rasterize" / "simd.py"
    simd.write_text(simd.read_text() + "\n# changed\n")
    assert run_in(trees[1], cache) == [wanted, "0", "1"]
    assert run_in(trees[0], cache) == [wanted, "1", "0"]


def test_a_digest_is_of_all_that_a_file_imports() -> None:
    files = [PACKAGE.resolve() / name for name in ("ssim_kernels.py", "rasterize/blend.py", "rasterize/bins.py")]
    assert len({digest_of(file) for file in files}) == len(files)
