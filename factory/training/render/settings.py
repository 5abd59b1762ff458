"""Set how `im3d render` draws turntables of meshes (3.1): `RenderConfig`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from factory.line.cpus import available_cpus
from factory.line.placement import Pool
from model.views import PAPER_VIEWS
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class RenderConfig:
    """Turntables of meshes (3.1): uniform azimuths, one random elevation each."""

    size: int = 128
    """Side of the frames in pixels, in [16, 2048]."""
    turntables: int = 1
    """Turntables of each asset, each with its own elevation, >= 1."""
    max_elevation_degrees: float = 45.0
    """Elevations are uniform in [0, this], in [0, 89]."""
    random_start: bool = False
    """Start at a random azimuth instead of the front."""
    stretch: float = 1.0
    """Make each turntable's mesh longer or shorter along each of its axes, by a random factor of at most this and
    at least its inverse, in [1, 4]: more shapes to train on than there are assets."""
    bend: float = 0.0
    """Let each turntable's mesh lean, taper and twist at random, the more the higher, in [0, 1]."""
    companions: float = 0.0
    """Share of the turntables in which another asset of the table stands beside, in [0, 1]; captions name the first."""
    assemblies: float = 0.0
    """Share of the turntables that show an object put together at random from the asset, another of the table and
    simple solids, in [0, 1]; its caption is "a thing"."""
    seed: int = 0
    """Of elevations, starts, shapes, companions and assemblies; all but the other asset depend on the turntable's own
    id alone."""
    num_views: int = PAPER_VIEWS
    """Views of a turntable, >= 1; field of view and distance are those of `OrbitConfig`."""
    pool: Pool = field(default_factory=lambda: Pool(actors=available_cpus(), batch=4))
    """The rendering actors."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise UserError(f"size is {self.size}; it must lie in [16, 2048] pixels")
        if self.turntables < 1 or self.num_views < 1:
            raise UserError(f"turntables is {self.turntables}, num_views {self.num_views}; both must be at least 1")
        if not 0 <= self.max_elevation_degrees <= 89:
            raise UserError(f"max_elevation_degrees is {self.max_elevation_degrees}; it must lie in [0, 89]")
        if not 1 <= self.stretch <= 4:
            raise UserError(f"stretch is {self.stretch}; it must lie in [1, 4]")
        for name in ("bend", "companions", "assemblies"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")

    def identity(self) -> dict[str, Any]:
        """The settings that every turntable depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("pool", "address")}
