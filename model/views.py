"""State the cameras that a turntable model promises of its frames: `ViewPlan`. Plain numbers, nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from recon.user_error import UserError

Background = Literal["white", "black", "grey"]
FULL_TURN = 2 * math.pi
PAPER_VIEWS = 16
"""Frames of a turntable in the paper (3.1), of pocket and of fine-tuned I2VGen-XL and Stable Video Diffusion."""
VIEWS_FILE = "views.json"
"""Beside the weights of a fine-tuned model: fields of a `ViewPlan` that differ from its family's."""


@dataclass(kw_only=True, frozen=True, slots=True)
class ViewPlan:
    """The cameras of a video's frames, around an object inside the unit sphere.

    Angles follow `recon.cameras`: growing azimuth moves the camera towards +x, counter-clockwise seen from above.
    """

    azimuths: tuple[float, ...]
    """Radians, one a frame in the order of the frames, relative to the image's view; the first is 0."""
    elevation: float | None = None
    """Radians above the horizon, of all frames; None: constant and unknown, to be estimated."""
    fov_degrees: float = 40.0
    """Horizontal and vertical field of view, in (0, 120)."""
    distance: float = 3.0115
    """Camera to origin in radii of the object's bounding sphere, > 1."""
    size: int | None = None
    """Side in pixels that the frames are made at; None: the image's."""
    background: Background = "white"
    """What lies behind the object."""
    exact: bool = True
    """False: the azimuths are a first guess; direction, speed and period are to be estimated from the frames."""
    fit: tuple[int, ...] | None = None
    """Frames that a fit uses, rising, frame 0 among them; None: all."""

    def __post_init__(self) -> None:
        if not self.azimuths or self.azimuths[0] != 0 or not all(map(math.isfinite, self.azimuths)):
            raise UserError(f"azimuths are {self.azimuths[:4]}...; give finite angles, the first of them 0")
        if self.elevation is not None and not abs(self.elevation) < math.pi / 2:
            raise UserError(f"elevation is {self.elevation}; it must lie within (-pi/2, pi/2) radians")
        if not 0 < self.fov_degrees < 120:
            raise UserError(f"fov_degrees is {self.fov_degrees}; it must lie in (0, 120)")
        if not 1 < self.distance < math.inf:
            raise UserError(f"distance is {self.distance}; it must exceed 1, the object's radius, and be finite")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise UserError(f"size is {self.size}; it must lie in [8, 4096] pixels")
        if self.fit is not None and not self._is_choice(self.fit):
            raise UserError(f"fit is {self.fit}; give rising frame numbers from 0 on, below {len(self.azimuths)}")

    def _is_choice(self, fit: tuple[int, ...]) -> bool:
        return fit[:1] == (0,) and list(fit) == sorted(set(fit)) and fit[-1] < len(self.azimuths)

    def __len__(self) -> int:
        return len(self.azimuths)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The frames that a fit uses."""
        return tuple(range(len(self))) if self.fit is None else self.fit

    @property
    def even(self) -> bool:
        """Whether the frames that a fit uses are one turn in even steps, the way azimuths grow."""
        chosen = self.chosen
        steps = (FULL_TURN * k / len(chosen) for k in range(len(chosen)))
        return all(abs(self.azimuths[frame] - step) < 1e-6 for frame, step in zip(chosen, steps, strict=True))

    def check(self, num_frames: int) -> None:
        """Raise ValueError unless a video has as many frames as the plan has views."""
        if num_frames != len(self):
            raise UserError(f"the video has {num_frames} frames and the model's view plan {len(self)} views; "
                            "give every native frame, in the model's order")  # fmt: skip


def uniform_views(count: int, **rest: Any) -> ViewPlan:
    """A full turn in `count` even steps, the last one short of the first view; `rest` are fields of the plan."""
    return ViewPlan(azimuths=tuple(FULL_TURN * k / count for k in range(count)), **rest)


def latent_views(num_frames: int, *, clockwise: bool = False, closes: bool = True, **rest: Any) -> ViewPlan:
    """A full turn of a generator whose first latent holds one frame and every other four.

    A fit takes about 20 frames, each the last of its latent, so that a refinement noises what the fit has seen.

    Args:
        num_frames: 4k + 1, k >= 1.
        closes: whether the last frame repeats the first view; else it stops a step before it.
    """
    span = num_frames - 1
    step = (-FULL_TURN if clockwise else FULL_TURN) / (span if closes else num_frames)
    strides = [stride for stride in range(4, span + 1, 4) if span % stride == 0]
    stride = min(strides, key=lambda stride: abs(span // stride - 20))
    azimuths = (0.0, *(step * k for k in range(1, num_frames)))
    return ViewPlan(azimuths=azimuths, fit=tuple(range(0, span, stride)), **rest)


def distance_of(fov_degrees: float, circle: float) -> float:
    """Distance at which the unit sphere's outline has the radius `circle`, in (0, 1], of half the picture's side.

    sin a = 1 / d,  tan a = circle tan(fov / 2)
    """
    return 1 / math.sin(math.atan(circle * math.tan(math.radians(fov_degrees) / 2)))


def declared_views(plan: ViewPlan, declared: Mapping[str, Any]) -> ViewPlan:
    """`plan` with what a model's `VIEWS_FILE` says instead: fields by name, or "views", a number of even steps.

    Raises:
        UserError: if it has other fields, or values that are none.
    """
    names = {field.name for field in fields(ViewPlan)}
    if unknown := sorted(set(declared) - names - {"views"}):
        raise UserError(f"{VIEWS_FILE} has {', '.join(unknown)}; its fields are {', '.join(sorted(names))} and views")
    values: dict[str, Any] = {name: getattr(plan, name) for name in names}
    if "views" in declared:
        values |= {"azimuths": uniform_views(int(declared["views"])).azimuths, "fit": None}
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in declared.items()}
    values.pop("views", None)
    return ViewPlan(**values)
