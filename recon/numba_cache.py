"""Keep numba's compiled kernels of this package by what they are made of: `choose_cache_folder`, called on import.

Numba looks kernels up by the folder of their file, so that a copy of the tree, as `ray job submit` unpacks one for
every job, compiles all anew; and it sees changes of that file alone. Here a kernel lies in a folder named after the
digest of its file and of all files of the package that the file imports. Numba itself tells processors, types and its
own versions apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE, LOCATORS = "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES"
NUMBAS_OWN = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator"
"""Who places kernels of other packages."""
PACKAGE = Path(__file__).parent
IMPORT = re.compile(rf"^from {PACKAGE.name}((?:\.\w+)*) import (\([^)]*\)|.+)$", re.MULTILINE)
KEPT = "im3d-kernels"


def choose_cache_folder(environment: MutableMapping[str, str]) -> None:
    """Have numba place this package's kernels by `SourceLocator`, in NUMBA_CACHE_DIR, which is set where it is not.

    It becomes the user's cache, or a folder of the user's alone in the place of temporary files where that cannot be
    written.
    """
    environment.setdefault(LOCATORS, f"{PACKAGE.name}.numba_cache.SourceLocator,{NUMBAS_OWN}")
    if VARIABLE in environment:
        return
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/", ".cache"), KEPT)
    if _can_write(home):
        environment[VARIABLE] = str(home)
        return
    folder = Path(tempfile.gettempdir(), f"im3d-numba-{os.getuid()}")
    environment[VARIABLE] = str(folder if _is_own(folder) else tempfile.mkdtemp(prefix="im3d-numba-"))


class SourceLocator:
    """Where numba keeps a kernel of this package; numba calls it."""

    def __init__(self, function: Callable[..., Any], file: Path):
        self._digest, self._line = digest_of(file), function.__code__.co_firstlineno
        self._folder = Path(os.environ[VARIABLE], f"{file.stem}-{self._digest[:16]}")

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> SourceLocator | None:
        """None for another package's function, or where nothing can be written."""
        file = Path(py_file).resolve()
        if PACKAGE.resolve() not in file.parents or not file.is_file():
            return None
        locator = cls(py_func, file)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator

    def ensure_cache_path(self) -> None:
        """Make the folder, and see that it can be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def get_cache_path(self) -> str:
        """The kernel's folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """What numba compares before it takes a kernel from there."""
        return self._digest

    def get_disambiguator(self) -> str:
        """What tells functions of one name in one file apart."""
        return str(self._line)


@cache
def digest_of(file: Path) -> str:
    """SHA-256 of a file of this package and of those that it imports from the package, by any way."""
    found, waiting = {}, [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = path.read_bytes()
            waiting += _imported(found[path].decode())
    lines = (
        f"{path.relative_to(PACKAGE.resolve())} {hashlib.sha256(found[path]).hexdigest()}" for path in sorted(found)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _imported(source: str) -> list[Path]:
    """Files of this package that a module's text imports from: ``from recon.a import b`` is of a.py, or of a/b.py."""
    found = []
    for module, names in IMPORT.findall(source):
        place = PACKAGE.resolve().joinpath(*module.split(".")[1:])
        found += [place.with_suffix(".py"), *(place / f"{name}.py" for name in re.findall(r"\w+", names))]
    return [path for path in found if path.is_file()]


def _can_write(folder: Path) -> bool:
    """Whether a folder can be written, or made where it is missing."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _is_own(folder: Path) -> bool:
    """Make a folder that nobody else may enter; False where somebody else has it, as its files are run."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
