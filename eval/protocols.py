"""Name how views are made and judged: `protocol_of` ours or one that others published, `cameras_of` its cameras.

The sources were read, not remembered. What a source does not state is marked "ours" in its `source`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.config import Up
from recon.user_error import UserError

if TYPE_CHECKING:
    from recon.cameras import Cameras

Layout = Literal["turn", "closed turn", "sphere"]
"""Where cameras stand: at uniform azimuths, the same with the last one where the first is, or all around the object."""
Extent = Literal["sphere", "cube", "centroid cube"]
"""What of an object reaches 1: its bounding sphere, its bounding cube, or the cube about the mean of its vertices."""
SUBDIVISIONS = 2
"""Of the icosahedron on whose 162 corners the cameras of a sphere stand."""
SMOOTHINGS = 3
"""Averagings over neighbouring places before the best one is taken, in T3Bench's pooling."""


@dataclass(kw_only=True, slots=True)
class Protocol:
    """How views are made and judged; scores of two protocols must not be compared."""

    name: str = "im3d"
    """Who judges so."""
    source: str = "this repository"
    """Where it is written down."""
    layout: Layout = "turn"
    """Where the cameras stand."""
    num_views: int = 16
    """Places of cameras; a video must have as many frames."""
    size: int = 128
    """Pixels of a side; a video must have as many."""
    background: float = 1.0
    """Grey behind the object in [0, 1]."""
    light: Literal["soft", "flat"] = "soft"
    """Of meshes: two soft lights, or their colours as they are."""
    elevation: float = 0.3
    """Elevation of the cameras in radians, in (-1.57, 1.57), for assets whose own is not known or not looked at."""
    own_elevation: bool = True
    """Whether an asset is seen from the elevation that it was made at."""
    fov_degrees: float = 40.0
    """Field of view of the re-renders, in (0, 120)."""
    zooms: tuple[float, ...] = ()
    """Further fields of view at each place."""
    distance: float = 3.0115
    """Camera to origin, in units of the object's extent, > 1."""
    extent: Extent = "sphere"
    """What of the object reaches 1."""
    up: Up = "y"
    """Which way is up in PLY and OBJ files."""
    normalise: bool = False
    """Whether Gaussians are moved and scaled to that extent, as meshes always are."""
    videos: bool = True
    """Whether synthesised frames are judged too."""
    pooling: Literal["mean", "best place"] = "mean"
    """How the scores of views become an asset's: see `pooled`."""

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.size < 2:
            raise UserError(f"num_views is {self.num_views} and size {self.size}; they must be at least 1 and 2")
        if not 0 <= self.background <= 1:
            raise UserError(f"background is {self.background}; it must lie in [0, 1]")
        if not -1.57 < self.elevation < 1.57:
            raise UserError(f"elevation is {self.elevation}; it must lie in (-1.57, 1.57) radians")
        if not all(0 < fov < 120 for fov in (self.fov_degrees, *self.zooms)) or not self.distance > 1:
            raise UserError(
                f"fov_degrees is {self.fov_degrees} and distance {self.distance}; "
                "they must lie in (0, 120) and exceed 1, the object's extent"
            )

    @property
    def views(self) -> int:
        """Pictures of an asset: places times fields of view."""
        return self.num_views * (1 + len(self.zooms))


PROTOCOLS: dict[str, Protocol] = {
    "im3d": Protocol(),
    "trellis": Protocol(
        name="trellis",
        source="views: microsoft/TRELLIS issue 215 (yaw 0, 90, 180, 270, pitch 30); radius 2, fov 40, 512 px, black, "
        "objects in a cube of side 1: trellis/utils/render_utils.py of microsoft/TRELLIS",
        num_views=4,
        size=512,
        background=0.0,
        light="flat",
        elevation=math.radians(30),
        own_elevation=False,
        fov_degrees=40.0,
        distance=4.0,  # radius 2 about a cube whose half side is 0.5
        extent="cube",
        normalise=True,
        videos=False,
    ),
    "t3bench": Protocol(
        name="t3bench",
        source="run_eval_quality.py and render/meshrender.py of THU-LYJ-Lab/T3Bench; its judge ImageReward is not "
        "among ours, so that figures are those of the judges named beside them",
        layout="sphere",
        num_views=162,
        size=512,
        background=0.0,
        light="flat",
        elevation=0.0,
        own_elevation=False,
        fov_degrees=60.0,
        zooms=(45.0, 36.0, 30.0, 24.0),
        distance=2.2,
        extent="centroid cube",
        normalise=True,
        videos=False,
        pooling="best place",
    ),
    "gpteval3d": Protocol(
        name="gpteval3d",
        source="README.md of 3DTopia/GPTEval3D (120 views, 512 px, threestudio's cameras); elevation 15, fov 70, last "
        "view where the first is: threestudio/data/uncond.py; ours: white, the unit sphere fills the view",
        layout="closed turn",
        num_views=120,
        size=512,
        elevation=math.radians(15),
        own_elevation=False,
        fov_degrees=70.0,
        distance=1 / math.sin(math.radians(35)),
        normalise=True,
        videos=False,
    ),
}
"""Protocols by name."""
OF_FILES = ("up", "normalise")
"""What a user says of the files, by whatever protocol they are judged."""


def protocol_of(name: str, **settings: Any) -> Protocol:
    """The protocol `name` with a user's `settings`, of which a published protocol takes only those about files.

    Raises:
        UserError: for an unknown name, a setting out of range, or one that the published protocol fixes.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r} not found; available: {', '.join(PROTOCOLS)}")
    known = PROTOCOLS[name]
    fixed = [key for key, value in settings.items() if key not in OF_FILES and value != getattr(known, key)]
    if name != "im3d" and fixed:
        raise UserError(
            f"protocol {name} says {fixed[0]} {getattr(known, fixed[0])}, not {settings[fixed[0]]}; "
            "leave it out, or take --protocol im3d"
        )
    if known.normalise and settings.get("normalise") is False:
        settings = settings | {"normalise": True}
    return replace(known, **settings)


def cameras_of(protocol: Protocol, elevation: float | None = None) -> Cameras:
    """The cameras [V] of a protocol in our world (+y up, front +z), place by place, at each its fields of view.

    Args:
        elevation: the asset's own in radians, or None where it is not known.
    """
    import torch

    from recon.cameras import Cameras, intrinsics

    fovs = (protocol.fov_degrees, *protocol.zooms)
    viewmats = torch.from_numpy(look_at(places(protocol, elevation), protocol.distance)).float()
    Ks = torch.stack([intrinsics(protocol.size, fov) for fov in fovs])
    return Cameras(
        viewmats=viewmats.repeat_interleave(len(fovs), 0),
        Ks=Ks.repeat(len(viewmats), 1, 1),
        size=protocol.size,
    )


def places(protocol: Protocol, elevation: float | None = None) -> NDArray[np.float64]:
    """Unit vectors [num_views,3] from the object to its cameras."""
    if protocol.layout == "sphere":
        return np.asarray(_sphere().vertices)[:, [1, 2, 0]]  # theirs has +z up and its front towards +x
    if elevation is None or not protocol.own_elevation:
        elevation = protocol.elevation
    closed = protocol.layout == "closed turn"
    azimuths = np.linspace(0, 2 * math.pi, protocol.num_views, endpoint=closed)
    flat = math.cos(elevation)
    return np.stack([flat * np.sin(azimuths), np.full_like(azimuths, math.sin(elevation)), flat * np.cos(azimuths)], -1)


def look_at(directions: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """World-to-camera matrices [V,4,4] of cameras at `distance` along unit vectors [V,3] that look at the origin.

    Their up is +y, at the poles +x: `recon.cameras.look_at_origin` has no poles.
    """
    pole = np.abs(directions[:, 1:2]) > 0.99
    up = np.where(pole, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    forward = -directions
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    viewmats = np.tile(np.eye(4), (len(directions), 1, 1))
    viewmats[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    viewmats[:, 2, 3] = distance
    return viewmats


def pooled(values: NDArray[np.floating], protocol: Protocol) -> float:
    """An asset's score of those of its views [V], in their unit.

    "mean" is the mean. "best place" is T3Bench's: at each place the best field of view, three times averaged with the
    neighbouring places, and of these the best.
    """
    if protocol.pooling == "mean":
        return float(np.mean(values))
    scores = np.reshape(np.asarray(values, np.float64), (protocol.num_views, -1)).max(1)
    for _ in range(SMOOTHINGS):
        scores = np.array([scores[[place, *near]].mean() for place, near in enumerate(_sphere().vertex_neighbors)])
    return float(scores.max())


@cache
def _sphere() -> Any:
    from trimesh.creation import icosphere

    return icosphere(subdivisions=SUBDIVISIONS)
