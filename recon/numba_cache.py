"""Let numba keep its compiled kernels where it can write: `choose_cache_folder`, called when `recon` is imported."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose_cache_folder(package: Path, environment: MutableMapping[str, str]) -> None:
    """Set NUMBA_CACHE_DIR where numba's own places cannot be written, without which it refuses to compile.

    Its own are the folder of the code and the user's cache. In their stead comes a folder of the user's alone in the
    place of temporary files; the variable wins where it is set.
    """
    if VARIABLE in environment:
        return
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/", ".cache"), "numba")
    if _can_write(package / "__pycache__") or _can_write(home):
        return
    folder = Path(tempfile.gettempdir(), f"im3d-numba-{os.getuid()}")
    environment[VARIABLE] = str(folder if _is_own(folder) else tempfile.mkdtemp(prefix="im3d-numba-"))


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
