"""Read the materials of Wavefront OBJ files: `read_mtl`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.meshes.beside import Beside
from recon.meshes.parts import Look
from recon.meshes.textures import CLAMP, REPEAT, Textures

_NUM_VALUES = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2,
               "-texres": 1, "-type": 1, "-o": 3, "-s": 3, "-t": 3}  # fmt: skip
"""Values that follow an option of a texture; one to three numbers for the last three."""


@dataclass(slots=True)
class Paint:
    """A material: sRGB colour `factor` [3], `look`, and `scale` and `offset` [2] of its places in the texture."""

    factor: NDArray[np.float64]
    look: Look
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]


def read_mtl(data: bytes, name: str, beside: Beside, textures: Textures) -> dict[str, Paint]:
    """The materials of a .mtl by their names: `Kd`, or `map_Kd` in its place, and holes where `map_d` is its alpha.

    Args:
        data: the file. name: of the file, in errors. beside: holds the textures. textures: get them.

    Raises:
        ValueError: when a line is broken, a texture is missing, or transparency comes from a file of its own.
    """
    blocks: dict[str, dict[str, str]] = {}
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        word, _, rest = line.strip().replace("\t", " ").partition(" ")
        if word.lower() == "newmtl":
            block = blocks.setdefault(rest.strip(), {})
        elif word.lower() in ("kd", "map_kd", "map_d"):
            if not blocks:
                raise ValueError(f"{name[:80]}, line {number}: {word} comes before any newmtl")
            block[word.lower()] = rest.strip()
    return {key: _paint(block, f"{name[:80]}, {key[:80]!r}", beside, textures) for key, block in blocks.items()}


def _paint(block: dict[str, str], where: str, beside: Beside, textures: Textures) -> Paint:
    try:
        color = np.array([float(value) for value in block.get("kd", "1 1 1").split()[:3]])
    except ValueError as error:
        raise ValueError(f"{where}: Kd is {block['kd'][:80]!r}; it must be three numbers") from error
    if color.shape != (3,) or not np.isfinite(color).all():
        raise ValueError(f"{where}: Kd is {block['kd'][:80]!r}; it must be three numbers")
    paint = Paint(color.clip(0, 1), Look(), np.ones(2), np.zeros(2))
    if "map_kd" not in block:
        if "map_d" in block:
            raise ValueError(f"{where}: map_d without map_Kd is not read; put the alpha into the picture of map_Kd")
        return paint
    file, options = _texture(block["map_kd"], where)
    if "map_d" in block and _texture(block["map_d"], where)[0] != file:
        raise ValueError(f"{where}: map_d is another picture than map_Kd; put the alpha into the picture of map_Kd")
    paint.factor = np.ones(3)
    paint.look.blended = "map_d" in block
    paint.scale, paint.offset = _pair(options, "-s", 1.0, where), _pair(options, "-o", 0.0, where)
    wrap = CLAMP if options.get("-clamp") == ["on"] else REPEAT
    paint.look.texture = textures.add(file, lambda: beside.file(file), file, (wrap, wrap))
    return paint


def _texture(line: str, where: str) -> tuple[str, dict[str, list[str]]]:
    """The name of a texture's file, which may hold spaces, and the options before it."""
    words, options, rest = line.split(), {}, line
    while words and words[0].lower() in _NUM_VALUES:
        option = words.pop(0).lower()
        count = _NUM_VALUES[option]
        if count == 3:
            count = next((k for k, word in enumerate(words[:3]) if not _number(word)), 3)
        options[option], words = words[:count], words[count:]
        rest = " ".join(words)
    if not rest:
        raise ValueError(f"{where}: {line[:80]!r} names no picture")
    if {"-mm", "-t", "-imfchan"} & options.keys():
        raise ValueError(f"{where}: the options -mm, -t and -imfchan of a texture are not read; bake them in")
    return rest, options


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _pair(options: dict[str, list[str]], name: str, default: float, where: str) -> NDArray[np.float64]:
    values = options.get(name, [])
    if not all(map(_number, values)):
        raise ValueError(f"{where}: {name} {' '.join(values)[:40]} must be numbers")
    return np.array([*map(float, values), default, default][:2])
