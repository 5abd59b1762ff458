"""The cameras of a row's frames: `plan_of` a row, `as_column` of a plan, `orbit_of` what is rendered again.

A plan travels in the column `view_plan` from the video model on, since the stages are processes of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from model.views import ViewPlan, uniform_views
from recon.config import OrbitConfig


def as_column(plan: ViewPlan) -> dict[str, Any]:
    """A plan as the value of the column."""
    return dataclasses.asdict(plan)


def plan_of(row: Mapping[str, Any], num_frames: int, orbit: OrbitConfig) -> ViewPlan:
    """The plan of a row's frames; where no stage before wrote one, one even turn seen as the settings `orbit` say.

    Raises:
        ValueError: if the plan is that of another number of frames.
    """
    told = row.get("view_plan")
    if told is None:
        return uniform_views(num_frames, fov_degrees=orbit.fov_degrees, distance=orbit.distance)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    plan = ViewPlan(**values)
    plan.check(num_frames)
    return plan


def orbit_of(row: Mapping[str, Any], orbit: OrbitConfig) -> OrbitConfig:
    """`orbit` with the field of view and distance of the row's own plan, where it has one."""
    told = row.get("view_plan")
    if told is None:
        return orbit
    return dataclasses.replace(orbit, fov_degrees=told["fov_degrees"], distance=told["distance"])
