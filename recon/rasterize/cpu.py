"""Render on the CPU by numba kernels behind two autograd functions: `project`, `blend_tiles`.

Between the two lie the projected means, so that ``meta["means2d"].retain_grad()`` works as with gsplat.
Results are bitwise equal for any number of threads. Kernels run under one lock, because numba's default
thread pool must not be entered twice; start worker processes by spawn, not fork.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.rasterize import bins as binning
from recon.rasterize import blend, blend_gradient, projection, projection_gradient

_LOCK = threading.Lock()


def _array(tensor: Tensor) -> np.ndarray:
    """A contiguous float32 view of the tensor's memory, without copying where it is contiguous already."""
    return tensor.detach().contiguous().numpy()


class _Project(torch.autograd.Function):
    """(means, quats, scales, viewmats) -> (means2d, conics, depths), and radii and reaches without gradient."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        """Project every Gaussian into every view; what backward needs is kept."""
        means, quats, scales, viewmats, log2_opacities, Ks, settings = args
        views, count = viewmats.shape[0], means.shape[0]
        means2d, conics = torch.empty(views, count, 2), torch.empty(views, count, 3)
        depths, reaches = torch.empty(views, count), torch.empty(views, count, 2)
        radii = torch.empty(views, count, 2, dtype=torch.int32)
        outputs = tuple(t.numpy().reshape(-1) for t in (means2d, conics, depths, radii, reaches))
        with _LOCK:
            projection.project_forward(
                _array(means).reshape(-1), _array(quats).reshape(-1), _array(scales).reshape(-1),
                _array(log2_opacities), _array(viewmats), _array(Ks), settings, outputs,
            )  # fmt: skip
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, depths)
        ctx.settings = settings
        ctx.mark_non_differentiable(radii, reaches)
        ctx.set_materialize_grads(False)
        return means2d, conics, depths, radii, reaches

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of means, quaternions and scales, and of the cameras where they are wanted."""
        means, quats, scales, viewmats, Ks, depths = ctx.saved_tensors
        views, count = depths.shape
        shapes = ((views, count, 2), (views, count, 3), (views, count))
        incoming = [torch.zeros(s) if g is None else g for g, s in zip(grads[:3], shapes, strict=True)]
        gradients = [torch.empty(count, columns) for columns in (3, 4, 3)]
        camera_views = views if ctx.needs_input_grad[3] else 0
        v_viewmats = np.zeros((projection_gradient.CHUNKS, camera_views, 3, 4), np.float32)
        with _LOCK:
            projection_gradient.project_backward(
                tuple(_array(t).reshape(-1) for t in (means, quats, scales)),
                _array(viewmats),
                _array(Ks),
                ctx.settings,
                tuple(_array(t).reshape(-1) for t in (*incoming, depths)),
                tuple(t.numpy().reshape(-1) for t in gradients),
                v_viewmats,
            )
        v_view = None
        if camera_views:
            v_view = torch.zeros(views, 4, 4)
            v_view[:, :3] = torch.from_numpy(v_viewmats.sum(0))
        return *gradients, v_view, None, None, None


class _Blend(torch.autograd.Function):
    """(means2d, conics, colors, opacities, backgrounds) -> (renders, alphas), and largest weights without gradient."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        """List pairs of tiles and Gaussians, then blend each tile front to back."""
        means2d, conics, colors, opacities, backgrounds, depths, reaches, log2_opacities, width, height = args
        views = means2d.shape[0]
        renders = torch.empty(views, height, width, colors.shape[2])
        alphas, weights = torch.empty(views, height, width, 1), torch.empty(means2d.shape[:2])
        with _LOCK:
            projected = (_array(means2d), _array(conics), _array(reaches))
            bins = binning.build_bins(projected, _array(depths), _array(log2_opacities), _array(colors), width, height)
            tiles = bins.tile_start.shape[0] - 1
            transmittances = np.empty((tiles, binning.TILE_HEIGHT * binning.STRIDE), np.float32)
            stops, taken = np.empty_like(transmittances), np.empty(tiles, np.int64)
            slot_weights = np.empty(bins.pair_slot.shape[0], np.float32)
            blend.blend_forward(
                bins, _array(backgrounds), renders.numpy(), alphas.numpy()[..., 0], transmittances, stops, taken,
                slot_weights,
            )  # fmt: skip
        blend.gather_weights(bins.ranks, bins.first_slot, slot_weights, weights.numpy())
        ctx.save_for_backward(conics, opacities, backgrounds, alphas)
        ctx.state = (bins, transmittances, stops, taken, colors.shape)
        ctx.mark_non_differentiable(weights)
        return renders, alphas, weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients from each tile's pairs, summed by Gaussian, and of the backgrounds where they are wanted."""
        conics, opacities, backgrounds, alphas = ctx.saved_tensors
        bins, transmittances, stops, taken, color_shape = ctx.state
        v_renders, v_alphas, _ = grads
        views, count = conics.shape[:2]
        slots = np.zeros(bins.pair_rank.shape[0] * blend_gradient.slot_width(color_shape[2]), np.float32)
        v_means2d, v_conics = torch.zeros(views, count, 2), torch.zeros(views, count, 3)
        v_colors, v_opacities = torch.zeros(color_shape), torch.zeros(count)
        with _LOCK:
            blend_gradient.blend_backward(
                bins, _array(backgrounds), transmittances, stops, taken, _array(v_renders),
                _array(v_alphas)[..., 0], slots,
            )  # fmt: skip
            outputs = (v_means2d, v_conics, v_colors, v_opacities)
            blend_gradient.gather_gradients(
                bins.ranks, bins.first_slot, _array(conics), _array(opacities), slots, *(t.numpy() for t in outputs)
            )
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            v_backgrounds = torch.einsum("chwi,chwd->cd", 1 - alphas, v_renders)
        return v_means2d, v_conics, v_colors, v_opacities, v_backgrounds, None, None, None, None, None


def project(
    means: Tensor,  # [N,3]
    quats: Tensor,  # [N,4]
    scales: Tensor,  # [N,3]
    opacities: Tensor,  # [N]
    viewmats: Tensor,  # [C,4,4]
    Ks: Tensor,  # [C,3,3]
    settings: tuple[float, ...],  # width, height, eps2d, near, far, radius_clip
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(means2d [C,N,2], conics [C,N,3], depths [C,N], radii [C,N,2] int32, reaches [C,N,2]); zero if unseen."""
    log2_opacities = opacities.detach().log2()
    numbers = tuple(np.float32(s) for s in settings)
    return _Project.apply(means, quats, scales, viewmats, log2_opacities, Ks, numbers)  # type: ignore[return-value]


def blend_tiles(
    means2d: Tensor,  # [C,N,2]
    conics: Tensor,  # [C,N,3]
    colors: Tensor,  # [1,N,D] or [C,N,D]
    opacities: Tensor,  # [N]
    backgrounds: Tensor,  # [C,D]
    depths: Tensor,  # [C,N]
    reaches: Tensor,  # [C,N,2]
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(renders [C,H,W,D], alphas [C,H,W,1], largest blending weights [C,N]) of projected Gaussians."""
    log2_opacities = opacities.detach().log2()
    return _Blend.apply(
        means2d, conics, colors, opacities, backgrounds, depths.detach(), reaches, log2_opacities, width, height
    )  # type: ignore[return-value]
