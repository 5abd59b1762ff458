"""Build gsplat's CUDA kernels by one process of a machine at a time, and load them: `load_kernels`.

    python -m recon.rasterize.kernels        # in an image, without a GPU, for the architectures of TORCH_CUDA_ARCH_LIST

torch's own lock of a build stays behind when its process dies, and whoever comes later waits for it for ever; and
gsplat deletes what it finds half built, also under another process that is building it. So all of it happens under a
lock that the system takes back when its holder dies.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from recon.user_error import UserError

NAME = "gsplat_cuda"


@lru_cache(maxsize=1)
def load_kernels() -> None:
    """Load the kernels into this process; the first one of a machine builds them, which takes minutes.

    Raises:
        UserError: where gsplat is missing, or nothing can build them.
    """
    from filelock import FileLock

    place = build_folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.building"):
        try:
            backend: Any = import_module("gsplat.cuda._backend")
        except ImportError as error:
            raise UserError(
                f"engine 'gsplat' cannot load its kernels ({error}): pip install gsplat==1.5.3, and delete {place} "
                "where they were built for another torch"
            ) from error
    if backend._C is None:
        raise UserError(
            "gsplat's kernels are not built and there is no nvcc to build them: take the image of "
            "infra/Dockerfile.gpu, which has them, or install the CUDA toolkit of torch's version"
        )


def build_folder() -> Path:
    """Where torch builds them: in TORCH_EXTENSIONS_DIR, else in the user's cache by versions of Python and CUDA."""
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    if given := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(given, NAME)
    cuda = "cpu" if torch.version.cuda is None else f"cu{torch.version.cuda.replace('.', '')}"
    python = f"py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"
    return Path(get_default_build_root(), f"{python}_{cuda}", NAME)


def are_built() -> bool:
    """Whether a process that loads them need not build them."""
    return (build_folder() / f"{NAME}.so").is_file()


if __name__ == "__main__":
    load_kernels()
    print(f"gsplat's kernels are in {build_folder()}")
