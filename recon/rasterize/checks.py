"""Check what reaches the rasteriser, with errors that name value, limit and way out: `check_inputs`."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SIDE = 16384
MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
ENGINES = ("auto", "cpu", "gsplat")


def check_inputs(
    tensors: dict[str, Tensor],
    width: int,
    height: int,
    sh_degree: int | None,
    render_mode: str,
    engine: str,
    options: dict[str, float],
    values: bool = True,
) -> None:
    """Raises ValueError for the first argument of `recon.rasterize.rasterize` that is out of its contract.

    Shapes, dtypes and devices cost nothing. Without `values` that is all that is looked at, for whether numbers are
    finite a GPU can only tell by finishing all it was given before.
    """
    _check_choices(width, height, render_mode, options)
    _check_engine(engine, tensors["means"].device)
    _check_shapes(tensors, sh_degree)
    for name, tensor in tensors.items():
        _check_kind(name, tensor, tensors["means"].device)
    if values:
        _check_finite(tensors)


def _check_engine(engine: str, device: torch.device) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; available: {', '.join(ENGINES)}")
    if engine == "gsplat" and device.type != "cuda":
        raise ValueError(f"engine 'gsplat' needs CUDA tensors, means are on {device}; use engine='cpu'")
    if engine == "cpu" and device.type != "cpu":
        raise ValueError(f"engine 'cpu' needs tensors on the CPU, means are on {device}; use engine='gsplat'")


def _check_choices(width: int, height: int, render_mode: str, options: dict[str, float]) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"the image is {width} x {height} pixels; each side must be 1 to {MAX_SIDE}")
    if render_mode not in MODES:
        raise ValueError(f"render_mode is {render_mode!r}; available: {', '.join(MODES)}")
    if not 0 < options["near_plane"] < options["far_plane"]:
        raise ValueError(
            f"near_plane {options['near_plane']} and far_plane {options['far_plane']} must satisfy 0 < near < far"
        )
    if not (options["eps2d"] >= 0 and options["radius_clip"] >= 0):
        raise ValueError(f"eps2d {options['eps2d']} and radius_clip {options['radius_clip']} must not be negative")


def _check_shapes(tensors: dict[str, Tensor], sh_degree: int | None) -> None:
    if tensors["means"].dim() not in (2, 3) or tensors["viewmats"].dim() < 3:
        found = {name: list(tensors[name].shape) for name in ("means", "viewmats")}
        raise ValueError(f"shapes are {found}; give means [N,3] and viewmats [C,4,4], or [B,N,3] and [B,C,4,4]")
    scenes, count = tuple(tensors["means"].shape[:-2]), tensors["means"].shape[-2]
    views = tensors["viewmats"].shape[-3]
    expected = {"means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,)}
    expected |= {"viewmats": (views, 4, 4), "Ks": (views, 3, 3)}
    colors = tensors["colors"]
    tail = tuple(colors.shape[-1:]) if sh_degree is None else (*colors.shape[-2:-1], 3)
    shared = (count, *tail)
    expected["colors"] = shared if colors.dim() == len(scenes) + len(shared) else (views, *shared)
    if "backgrounds" in tensors:
        expected["backgrounds"] = (views, 3 if sh_degree is not None else colors.shape[-1])
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != scenes + shape:
            found, wanted = tuple(tensors[name].shape), scenes + shape
            raise ValueError(f"{name} has shape {found}; with {count} means and {views} viewmats it must be {wanted}")


def _check_kind(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} is {tensor.dtype}; the rasteriser works in torch.float32: pass {name}.float()")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device} but means on {device}; move them to one device")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """One transfer from the device where all is well; sums that overflow are looked at again."""
    if bool(torch.stack([tensor.detach().sum() for tensor in tensors.values()]).isfinite().all()):
        return
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} values that are not finite of {tensor.numel()}; remove or clamp them")
