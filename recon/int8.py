"""Keep weights in 8 bits, a scale for each output channel: `quantized`, `dequantized`.

    python -m recon.int8 embedded weights/image weights/video

A matrix or convolution is stored as int8 beside the float32 scales of its rows, at half the size of float16; the error
of a weight is at most 1/254 of the largest in its row. Networks compute in floating point as before.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.user_error import UserError

SCALE = ".int8_scale"
"""Ends the name of the scales of the tensor that is named before it."""
LEAST = 4096
"""Values that a tensor must have to be stored in 8 bits."""


def quantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and convolutions [C,...] as int8 and scales float32 [C,1,...]; all else as float16."""
    stored = {}
    for name, value in state.items():
        if value.dtype == torch.int8 or name.endswith(SCALE) or not value.is_floating_point():
            stored[name] = value
        elif value.ndim < 2 or value.numel() < LEAST:
            stored[name] = value.half()
        else:
            largest = value.float().abs().amax(tuple(range(1, value.ndim)), keepdim=True)
            scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
            stored[name] = (value.float() / scale).round().clamp(-127, 127).to(torch.int8)
            stored[name + SCALE] = scale
    return stored


def dequantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `quantized` stored as float32; other floating point tensors as float32, too."""
    found = {}
    for name, value in state.items():
        if name.endswith(SCALE):
            continue
        scale = state.get(name + SCALE)
        if scale is not None:
            found[name] = value.float() * scale
        else:
            found[name] = value.float() if value.is_floating_point() else value
    return found


def read_state(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder's only safetensors file, in float32.

    Raises:
        UserError: where there is none, or several.
    """
    from safetensors.torch import load_file

    return dequantized(load_file(_file(folder)))


def read_model(kind: Any, folder: Path) -> Any:
    """A diffusers model of class `kind` from a folder with its config.json, float32, in evaluation mode."""
    model = kind.from_config(kind.load_config(folder))
    model.load_state_dict(read_state(folder))
    return model.float().eval()


def _file(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} safetensors files, where one is wanted; copy the folder again")
    return files[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Copy folders into another one, their weights in 8 bits."""
    from safetensors.torch import load_file, save_file

    arguments = [Path(folder) for folder in (sys.argv[1:] if argv is None else argv)]
    if len(arguments) < 2:
        print("error: give a folder to write into and those to read: python -m recon.int8 OUT FOLDER ...",
              file=sys.stderr)  # fmt: skip
        return 2
    out, *folders = arguments
    for folder in folders:
        path = _file(folder)
        copy = shutil.copytree(folder, out / folder.name, dirs_exist_ok=True) / path.name
        state = {name: value.contiguous() for name, value in quantized(load_file(path)).items()}
        save_file(state, copy, metadata={"format": "pt"})
        print(f"{copy}: {copy.stat().st_size} bytes; {path.stat().st_size} before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
