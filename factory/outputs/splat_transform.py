"""Write other splat formats by PlayCanvas' splat-transform, a program of the npm registry: `locate`, `convert`."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.user_error import UserError

SECONDS = 600
PACKAGE, PINNED = "@playcanvas/splat-transform", "3.7.0"
"""The version that the tests run with."""
OLDEST = (2, 7)
"""Older versions write logarithms of scales into glTF."""
INSTALL = f"`npm install -g {PACKAGE}@{PINNED}` (Node.js 22 or newer)"
TURNED = ("glb", "html")
"""What splat-transform turns by half a turn about z, since PLY files of scans have y down; ours have y up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """splat-transform as it was found."""

    path: str
    """Absolute."""
    version: str
    """As `3.7.0`."""


def locate(program: str) -> Program:
    """The program, once it has said its version.

    Raises:
        UserError: when it is not there, does not start, or is older than OLDEST.
    """
    found = shutil.which(program)
    if found is None:
        raise UserError(
            f"{program!r} is not installed: {INSTALL} brings it, or name it with --splat-transform; ply, splat, glb, "
            "usd and the formats of rendered views need no other program"
        )
    path = str(Path(found).absolute())
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path} does not start ({error}): {INSTALL} brings it") from error
    said = done.stdout + done.stderr
    version = re.search(r"\bv(\d+)\.(\d+)\.(\d+)", said)
    if done.returncode or version is None:
        raise UserError(f"{path} does not start ({first_error(said)}): {INSTALL} brings it")
    numbers = tuple(map(int, version.groups()))
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(f"{path} is splat-transform {version[0]}, {oldest} or newer is needed: {INSTALL}")
    return Program(path=path, version=".".join(map(str, numbers)))


def convert(ply: bytes, suffix: str, program: str, options: Sequence[str] = ()) -> bytes:
    """A 3DGS PLY in another format that splat-transform writes, on the CPU.

    Args:
        ply: the Gaussians, +y up.
        suffix: spz, sog, html, glb or compressed.ply.
        program: `Program.path`.
        options: actions and flags of splat-transform, as ("--spz-version", "3").

    Raises:
        ValueError: when the program fails or takes more than ten minutes; with its first error line.
    """
    turn = ("-r", "0,0,180") if suffix in TURNED else ()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "asset.ply"), Path(folder, f"out.{suffix}")
        source.write_bytes(ply)
        run(program, [str(source), *turn, *options, str(target)], target)
        return target.read_bytes()


def streamed_levels(ply: bytes, shares: Sequence[float], program: str) -> dict[str, bytes]:
    """The files of a streamed SOG with levels of detail, `lod-meta.json` among them, by name.

    Args:
        ply: the Gaussians, the finest level.
        shares: of the Gaussians that the coarser levels keep, in (0, 1), finest first.
        program: `Program.path`.
    """
    with tempfile.TemporaryDirectory() as folder:
        levels = [Path(folder, "level0.ply")]
        levels[0].write_bytes(ply)
        for number, share in enumerate(shares, 1):
            level = Path(folder, f"level{number}.ply")
            run(program, [str(levels[0]), "--decimate", f"{100 * share:g}%", str(level)], level)
            levels.append(level)
        tagged = [word for number, level in enumerate(levels) for word in (str(level), "-l", str(number))]
        target = Path(folder, "lod", "lod-meta.json")
        target.parent.mkdir()
        run(program, [*tagged, str(target)], target)
        files = [path for path in target.parent.rglob("*") if path.is_file()]
        return {path.relative_to(target.parent).as_posix(): path.read_bytes() for path in sorted(files)}


def run(program: str, words: Sequence[str], target: Path) -> None:
    """Run splat-transform to write `target`; raises ValueError as `convert` does."""
    command = [program, "-q", "-w", "-g", "cpu", "--max-workers", "0", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"splat-transform took more than {SECONDS} s for {target.name}; decimate the asset") from error
    if done.returncode or not target.is_file():
        raise ValueError(f"splat-transform could not write {target.name}: {first_error(done.stdout + done.stderr)}")


def first_error(said: str) -> str:
    """The line of a program's words that tells the error: the first that names one, else the first of all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"error|fail|invalid|not found|no such|unsupported", line, re.I)]
    return (named or lines or ["it said nothing"])[0]
