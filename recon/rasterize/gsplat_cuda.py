"""Render on CUDA by gsplat's rasterization, imported only when it is used: `rasterize_gsplat`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recon.rasterize.kernels import load_kernels


def rasterize_gsplat(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, *, packed: bool, **options: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """gsplat.rasterization of checked inputs; see `recon.rasterize.rasterize` for arguments and results.

    Raises:
        UserError: if gsplat is not installed, or its kernels can be neither loaded nor built.
    """
    load_kernels()
    from gsplat import rasterization

    renders, alphas, meta = rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, packed=packed, **options
    )
    return renders, alphas, _unpacked(meta, len(viewmats), len(means)) if packed else meta


def _unpacked(meta: dict[str, Any], views: int, count: int) -> dict[str, Any]:
    """What gsplat lists for visible pairs [P,...] of camera and Gaussian, as [C,N,...]; zero where not visible.

    The means' gradient follows theirs, so that ``meta["means2d"].grad`` is filled by the backward pass.
    """
    pairs = (meta["camera_ids"].long(), meta["gaussian_ids"].long())

    def spread(values: Tensor) -> Tensor:
        full = values.new_zeros(views, count, *values.shape[1:])
        return full.index_put(pairs, values.detach())

    centres = spread(meta["means2d"])
    if meta["means2d"].requires_grad:
        centres.requires_grad_()

        def follow(gradient: Tensor) -> None:
            centres.grad = spread(gradient)

        meta["means2d"].register_hook(follow)
    return meta | {name: spread(meta[name]) for name in ("radii", "depths", "conics")} | {"means2d": centres}
