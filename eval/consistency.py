"""Measure whether generated views belong to one rigid object, without a truth: `residual`, `feature_consistency`.

The fit is the one rigid object that explains the frames best. What it leaves (`residual`), how far the frames have
moved from it (`flow_residual`), and whether a point of its surface looks the same from the next camera
(`feature_consistency`, after MEt3R, Asim et al. 2025, with the fit's depth for the correspondence) say how much
the frames contradict each other.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eval.fidelity import Perceptual, lpips, psnr
from recon.cameras import Cameras

COLUMNS = ("residual_psnr", "residual_lpips_pocket", "feature_consistency", "flow_residual")
VISIBLE = 0.05
"""World units by which a point's depth may differ from that of the surface seen there."""
FLOW_RADIUS = 5
"""Pixels about a pixel in which its flow is taken as one."""
STATEMENT = {"perceptual": "pocket", "flow": f"Lucas-Kanade, radius {FLOW_RADIUS}", "visible": VISIBLE}
"""What the figures depend on beside the protocol of views; it is written beside them."""


def residual(frames: NDArray[np.uint8], renders: NDArray[np.uint8], network: Perceptual) -> dict[str, float]:
    """``residual_psnr`` in dB and ``residual_lpips_pocket`` of frames [V,S,S,3] and the fit's views there."""
    return {
        "residual_psnr": float(psnr(renders, frames).mean()),
        "residual_lpips_pocket": float(lpips(renders, frames, network).mean()),
    }


def flow_residual(frames: NDArray[np.uint8], renders: NDArray[np.uint8]) -> float | None:
    """How far the frames' object has moved from the fit's: mean length of the optical flow, as a share of the side.

    Args:
        frames: uint8 [V,S,S,3]. renders: uint8 [V,S,S,4], the fit over white, and coverage.

    Returns:
        >= 0 over pixels that the fit covers, by the iterative Lucas-Kanade flow (Le Besnerais & Champagnat 2005); None
        where it covers none.
    """
    from skimage.registration import optical_flow_ilk

    lengths = []
    for frame, render in zip(frames, renders, strict=True):
        flow = optical_flow_ilk(_grey(render[..., :3]), _grey(frame), radius=FLOW_RADIUS)
        lengths.append(np.hypot(*flow)[render[..., 3] > 127])
    found = np.concatenate(lengths)
    return float(found.mean() / frames.shape[1]) if len(found) else None


@torch.inference_mode()
def feature_consistency(
    frames: NDArray[np.uint8], depth: NDArray[np.float32], cameras: Cameras, network: Perceptual
) -> float | None:
    """Mean cosine of the features of a surface point in a frame and in the next one that sees it too.

    Args:
        frames: uint8 [V,S,S,3] around a whole turn. depth: [V,S,S] of the fit from `cameras`, 0: nothing.

    Returns:
        In [-1, 1], over all layers of the network; None when no point is seen twice.
    """
    layers = network.features(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255)
    depths, total, count = torch.from_numpy(depth), 0.0, 0
    for view in range(len(frames)):
        other = (view + 1) % len(frames)
        here, there = correspondences(depths[view], depths[other], cameras, view, other)
        for layer in layers if len(here) else ():
            pairs = (_sampled(layer[view], here), _sampled(layer[other], there))
            total += float(F.cosine_similarity(*pairs, dim=0).sum())
            count += len(here)
    return total / count if count else None


def correspondences(
    depth: Tensor, other_depth: Tensor, cameras: Cameras, view: int, other: int
) -> tuple[Tensor, Tensor]:
    """Places [N,2] (x, y in [-1, 1] of the image) of the surface points that both views see, in either."""
    rows, columns = torch.nonzero(depth > 0, as_tuple=True)
    pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones(len(rows))])
    points = torch.linalg.inv(cameras.Ks[view]) @ pixels * depth[rows, columns]
    first, second = cameras.viewmats[view], cameras.viewmats[other]
    world = first[:3, :3].T @ (points - first[:3, 3:])
    moved = second[:3, :3] @ world + second[:3, 3:]
    places = (cameras.Ks[other] @ moved)[:2] / moved[2]
    target = places.floor().long()
    inside = ((target >= 0) & (target < cameras.size)).all(0)
    x, y = target.clamp(0, cameras.size - 1)
    seen = inside & ((other_depth[y, x] - moved[2]).abs() < VISIBLE) & (other_depth[y, x] > 0)
    here, there = (2 * part[:, seen].T / cameras.size - 1 for part in (pixels[:2], places))
    return here, there


def _sampled(layer: Tensor, places: Tensor) -> Tensor:
    """Features [C,N] of a layer [C,H,W] at places [N,2], between its cells."""
    return F.grid_sample(layer[None], places[None, None], align_corners=False, padding_mode="border")[0, :, 0]


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return picture.astype(np.float32).mean(-1) / 255
