"""Load what a fit on the CPU runs before the first asset comes: `load_fit_kernels`.

    python -m recon.fit_kernels      # compile them, in an image or on a node

A cold machine compiles for most of a minute. One process of it does while the others wait, and they then find the
kernels where `recon.numba_cache` keeps them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recon.config import DensifyConfig, FitConfig, OrbitConfig, PoseConfig
from recon.device import device_of
from recon.numba_cache import VARIABLE

SIZE, VIEWS = 64, 2


class KernelCounts(NamedTuple):
    """Kernels, each for its types, of this process."""

    kept: int
    """Found compiled."""
    compiled: int
    """Compiled here."""


def load_fit_kernels(config: FitConfig) -> KernelCounts:
    """Fit a few Gaussians to a small square as `config` says; nothing is done where fits run on a GPU."""
    if device_of(config.device).type == "cpu":
        from filelock import FileLock

        folder = Path(os.environ[VARIABLE])
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "compiling.lock"):
            _fit(config)
    return counted()


def counted() -> KernelCounts:
    """All kernels of this package that this process has come to so far; those that are part of others do not count."""
    from numba.core.caching import FunctionCache
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in sys.modules.items() if name.startswith("recon.")]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    stats = [kernel.stats for kernel in found if isinstance(getattr(kernel, "_cache", None), FunctionCache)]
    return KernelCounts(
        kept=sum(sum(one.cache_hits.values()) for one in stats),
        compiled=sum(sum(one.cache_misses.values()) for one in stats),
    )


def _fit(config: FitConfig) -> None:
    """Two steps, with a round of densification."""
    from recon.cameras import turntable
    from recon.fit import fit

    frames = np.full((VIEWS, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = (200, 60, 20, 255)
    small = replace(
        config, iterations=2, num_points=200, coarse_iterations=0, pose=PoseConfig(),
        densify=DensifyConfig(method=config.densify.method, every=1),
    )  # fmt: skip
    fit(frames, None, turntable(0.3, SIZE, OrbitConfig(num_views=VIEWS)), small)


if __name__ == "__main__":
    found = load_fit_kernels(FitConfig(device="cpu"))
    print(f"{found.compiled} kernels compiled, {found.kept} found in {os.environ[VARIABLE]}")
