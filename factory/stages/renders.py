"""Render an asset's turntable: `render_turn`, and the views of it that are written and scored: `render_views`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.ledger.schemas import shape_of
from factory.stages.view_plans import orbit_of

Row = dict[str, Any]


def view_step(config: Any) -> int:
    """Frames of the turn from one written view to the next: as many views as divide both, at most `orbit.num_views`."""
    return config.files.turntable_frames // math.gcd(config.files.turntable_frames, config.orbit.num_views)


def side_of_renders(row: Row) -> int:
    """Pixels a side: of the row's frames, or of its reference image where none were generated."""
    frames = row.get("frames")
    return shape_of(row["image"])[0] if frames is None else shape_of(frames)[1]


def render_turn(row: Row, config: Any, device: str = "cpu") -> NDArray[np.uint8]:
    """One turn of the camera around a row's Gaussians: uint8 [T,S,S,4] over white, A is coverage.

    Args:
        row: with its elevation, and the plan of its frames where there is one: field of view and distance are theirs.
        config: the settings `orbit` and `files`; `files.turntable_frames` is T.
        device: where it is rendered.
    """
    return _rendered(row, config, device, 1)


def render_views(row: Row, config: Any, device: str = "cpu") -> NDArray[np.uint8]:
    """The frames of `render_turn` that are written as pictures and scored."""
    return _rendered(row, config, device, view_step(config))


def _rendered(row: Row, config: Any, device: str, step: int) -> NDArray[np.uint8]:
    import torch

    from factory.stages.asset_ply import gaussians_of
    from recon.cameras import turntable
    from recon.gaussians import render

    orbit = dataclasses.replace(orbit_of(row, config.orbit), num_views=config.files.turntable_frames)
    cameras = turntable(row["elevation"], side_of_renders(row), orbit)[range(0, orbit.num_views, step)]
    with torch.no_grad():
        rgb, alpha = render(gaussians_of(row["gaussians"]).to(device), cameras)
    pixels = torch.cat([rgb, alpha], -1).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).cpu().numpy()
