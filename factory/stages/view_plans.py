"""Carry the cameras of a row's frames along: `plan_of` a row, `measured` from frames, `orbit_of` its renders.

A plan travels in the column `view_plan` from the video model on, since the stages are processes of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.views import FULL_TURN, ViewPlan, uniform_views
from recon.config import OrbitConfig


def as_column(plan: ViewPlan) -> dict[str, Any]:
    """A plan as the value of the column."""
    return dataclasses.asdict(plan)


def plan_of(row: Mapping[str, Any], num_frames: int, orbit: OrbitConfig) -> ViewPlan:
    """The plan of a row's frames; where no stage before wrote one, one even turn seen as the settings `orbit` say.

    Raises:
        ValueError: if the plan is that of another number of frames.
    """
    column = row.get("view_plan")
    if column is None:
        return uniform_views(num_frames, fov_degrees=orbit.fov_degrees, distance=orbit.distance)
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in column.items()}
    plan = ViewPlan(**values)
    plan.check(num_frames)
    return plan


def measured(plan: ViewPlan, frames: NDArray[np.uint8], masks: NDArray[np.uint8]) -> ViewPlan:
    """A plan that is a guess, with the azimuths that its frames show; a fit uses views in about even steps of them.

    Args:
        frames: uint8 [V,S,S,3|4] on white. masks: uint8 [V,S,S].

    Raises:
        UserError: if the frames show no turn.
    """
    from recon.uneven_turn import estimate_turn

    seen = OrbitConfig(fov_degrees=plan.fov_degrees, distance=plan.distance)
    azimuths = estimate_turn(frames, masks, seen).azimuths
    count, stride = len(plan.chosen), math.gcd(*plan.chosen) or 1
    frames_at = range(0, len(plan), stride)  # the ends of latents, where the plan keeps to them
    step = FULL_TURN / count
    wanted = [step * k for k in range(count) if step * (k - 0.5) < abs(azimuths[-1])]
    fit = {min(frames_at, key=lambda frame: abs(abs(azimuths[frame]) - angle)) for angle in wanted}
    return dataclasses.replace(plan, azimuths=azimuths, fit=tuple(sorted(fit)))


def orbit_of(row: Mapping[str, Any], orbit: OrbitConfig) -> OrbitConfig:
    """`orbit` with the field of view and distance of the row's own plan, where it has one."""
    column = row.get("view_plan")
    if column is None:
        return orbit
    return dataclasses.replace(orbit, fov_degrees=column["fov_degrees"], distance=column["distance"])
