"""Render 3D Gaussians by one call on two engines, gsplat on CUDA and numba kernels on the CPU: `rasterize`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from recon.rasterize.checks import check_inputs
from recon.rasterize.spherical_harmonics import colors_of

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
Engine = Literal["auto", "cpu", "gsplat"]

__all__ = ["Engine", "RenderMode", "rasterize"]


def rasterize(
    means: Tensor,  # [(B,)N,3]
    quats: Tensor,  # [(B,)N,4]
    scales: Tensor,  # [(B,)N,3]
    opacities: Tensor,  # [(B,)N]
    colors: Tensor,  # [(B,)(C,)N,D] or [(B,)(C,)N,K,3]
    viewmats: Tensor,  # [(B,)C,4,4]
    Ks: Tensor,  # [(B,)C,3,3]
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [(B,)C,D]
    render_mode: RenderMode = "RGB",
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    radius_clip: float = 0.0,
    packed: bool = False,
    engine: Engine = "auto",
    check_values: bool = True,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Renders Gaussians into C pinhole views, with the signature and semantics of gsplat 1.5.3.

    A leading B on every tensor, and then on every result, stands for B scenes: one call of gsplat's kernels, one scene
    after the other on the CPU. Scenes of fewer Gaussians are filled up with ones of opacity 0.

    Args:
        means: centres, world units.
        quats: orientations wxyz, any length > 0.
        scales: standard deviations along the axes, world units, >= 0.
        opacities: in [0, 1].
        colors: features of any D, or with `sh_degree` spherical harmonics coefficients; a leading C for
            colours of each view.
        viewmats: world to camera, OpenCV axes. Ks: intrinsics in pixels, pixel centres at +0.5.
        width, height: in pixels.
        sh_degree: 0 to 3, or None for direct colours.
        backgrounds: blended behind; none is black.
        render_mode: colours, accumulated depth D, expected depth ED (D / alpha), or colours and depth.
        near_plane, far_plane: Gaussians outside are dropped, camera units, near_plane > 0.
        eps2d: added to the 2D covariance's diagonal, pixels^2.
        radius_clip: Gaussians of at most this radius in pixels are dropped.
        packed: gsplat keeps what is visible only, which takes less memory where views see little of the scene;
            the CPU engine always does. The results are the same. Not for several scenes.
        engine: "auto" takes gsplat for CUDA tensors, else the CPU engine.
        check_values: whether to look for values that are not finite, which makes a GPU wait; a loop that looks now and
            then by itself turns it off.

    Returns:
        renders [C,H,W,D (+1)], alphas [C,H,W,1] and a dict with means2d [C,N,2] in pixels
        (``retain_grad()`` works), radii [C,N,2] int32 in pixels (0 where not visible), depths [C,N],
        conics [C,N,3], width, height, n_cameras; by the CPU engine also weights [C,N], a Gaussian's largest blending
        weight at any pixel. Gradients reach means, quats, scales, opacities, colors,
        backgrounds and viewmats.

    Raises:
        ValueError: for a wrong shape, type, device or range, or a value that is not finite.
    """
    options = {"near_plane": near_plane, "far_plane": far_plane, "eps2d": eps2d, "radius_clip": radius_clip}
    tensors = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    tensors |= {"viewmats": viewmats, "Ks": Ks} | ({} if backgrounds is None else {"backgrounds": backgrounds})
    check_inputs(tensors, width, height, sh_degree, render_mode, engine, options, check_values)
    chosen: dict[str, Any] = {"sh_degree": sh_degree, "backgrounds": backgrounds, "render_mode": render_mode} | options
    given = (means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    if engine == "cpu" or not means.is_cuda:
        return (_rasterize_cpu if means.dim() == 2 else _rasterize_scenes_cpu)(*given, **chosen)
    from recon.rasterize.gsplat_cuda import rasterize_gsplat

    return rasterize_gsplat(*given, packed=packed and means.dim() == 2, **chosen)


def _rasterize_scenes_cpu(
    *given: Any, backgrounds: Tensor | None, **chosen: Any
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`_rasterize_cpu` of every scene, put together; ``means2d.grad`` is filled by the scenes' backward passes."""
    tensors, sides = given[:-2], given[-2:]
    backs: list[Tensor | None] = [None] * len(tensors[0]) if backgrounds is None else list(backgrounds)
    found = [
        _rasterize_cpu(*scene, *sides, backgrounds=back, **chosen) for *scene, back in zip(*tensors, backs, strict=True)
    ]
    renders, alphas, metas = zip(*found, strict=True)
    means2d = torch.stack([meta["means2d"].detach() for meta in metas])
    if metas[0]["means2d"].requires_grad:
        gradients = torch.zeros_like(means2d)
        means2d.requires_grad_().grad = gradients
        for meta, row in zip(metas, gradients, strict=True):
            meta["means2d"].register_hook(lambda gradient, row=row: (row.copy_(gradient), None)[1])
    joined = {name: torch.stack([meta[name] for meta in metas]) for name in ("radii", "depths", "conics", "weights")}
    return torch.stack(renders), torch.stack(alphas), metas[0] | joined | {"means2d": means2d, "n_batches": len(metas)}


def _rasterize_cpu(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, *, sh_degree: int | None, backgrounds: Tensor | None, render_mode: RenderMode,
    near_plane: float, far_plane: float, eps2d: float, radius_clip: float,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`rasterize` by the CPU engine, of checked inputs."""
    from recon.rasterize.cpu import blend_tiles, project

    settings = (width, height, eps2d, near_plane, far_plane, radius_clip)
    means2d, conics, depths, radii, reaches = project(means, quats, scales, opacities, viewmats, Ks, settings)
    if sh_degree is not None:
        colors = colors_of(sh_degree, colors, means, viewmats)
    features, backgrounds = _features(colors, depths, backgrounds, render_mode)
    projected = (means2d, conics, features, opacities, backgrounds, depths, reaches)
    renders, alphas, weights = blend_tiles(*projected, width, height)
    if render_mode in ("ED", "RGB+ED"):
        renders = torch.cat([renders[..., :-1], renders[..., -1:] / alphas.clamp(min=1e-10)], -1)
    meta = {"means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "weights": weights}
    return renders, alphas, meta | {"width": width, "height": height, "n_cameras": len(viewmats)}


def _features(
    colors: Tensor, depths: Tensor, backgrounds: Tensor | None, render_mode: RenderMode
) -> tuple[Tensor, Tensor]:
    """What is blended, [1,N,D] or [C,N,D], and its background [C,D]; depth has background 0."""
    views, count = depths.shape
    if render_mode in ("D", "ED"):
        return depths[..., None], depths.new_zeros(views, 1)
    colors = colors if colors.dim() == 3 else colors[None]
    if backgrounds is None:
        backgrounds = colors.new_zeros(views, colors.shape[-1])
    if render_mode == "RGB":
        return colors, backgrounds
    colors = torch.cat([colors.expand(views, count, -1), depths[..., None]], -1)
    return colors, torch.cat([backgrounds, backgrounds.new_zeros(views, 1)], -1)
