"""The CUDA engine: gsplat's own rasterization, imported only when it is used."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def rasterize_gsplat(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, **options: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """gsplat.rasterization with unpacked meta; see `recon.rasterize.rasterize` for the arguments.

    Raises:
        ImportError: if gsplat is not installed.
        ValueError: if the tensors are not on a CUDA device.
    """
    if not means.is_cuda:
        raise ValueError(f"engine 'gsplat' needs CUDA tensors, means are on {means.device}; use engine='cpu'")
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError("engine 'gsplat' needs the package gsplat==1.5.3: pip install gsplat==1.5.3") from error
    return rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, packed=False, **options)
