"""Convert splats by PlayCanvas' splat-transform, a program of the npm registry: `convert`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from factory.storage.user_error import UserError

SECONDS = 600
PACKAGE = "@playcanvas/splat-transform"


def locate(program: str) -> str:
    """The absolute path of the program.

    Raises:
        ValueError: when it is not there.
    """
    found = shutil.which(program)
    if found is None:
        raise UserError(
            f"{program!r} is not installed: `npm install -g {PACKAGE}` brings it (Node.js 20 or newer), or name it "
            "with --splat-transform; ply, splat, glb and the formats of rendered views need no other program"
        )
    return str(Path(found).absolute())


def convert(ply: bytes, suffix: str, program: str) -> bytes:
    """A 3DGS PLY in another format that splat-transform writes, on the CPU.

    Args:
        ply: the Gaussians.
        suffix: spz, sog or html.
        program: what `locate` returned.

    Raises:
        ValueError: when the program fails or takes more than ten minutes; with its own last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "asset.ply"), Path(folder, f"asset.{suffix}")
        source.write_bytes(ply)
        command = [program, "-w", "-g", "cpu", "--max-workers", "0", str(source), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"splat-transform took more than {SECONDS} s for {suffix}; decimate the asset") from error
        if done.returncode or not target.is_file():
            words = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise ValueError(f"splat-transform could not write {suffix}: {' | '.join(words[-3:])}")
        return target.read_bytes()
