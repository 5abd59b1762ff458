"""Set an export's format and what it depends on: `ExportConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from factory.line.cpus import available_cpus
from factory.line.placement import Pool
from model.views import PAPER_VIEWS
from recon.config import MeshConfig
from recon.user_error import UserError

Format = Literal[
    "ply",
    "compressed-ply",
    "splat",
    "spz",
    "sog",
    "splat-lod",
    "splat-glb",
    "html",
    "glb",
    "usd",
    "usdz",
    "nerfstudio",
    "colmap",
    "webdataset",
    "hf",
]
CONVERTED = {"spz": "spz", "sog": "sog", "html": "html", "splat-glb": "glb", "compressed-ply": "compressed.ply"}
"""Formats of one file that splat-transform writes, and what it calls them."""
BY_SPLAT_TRANSFORM = (*CONVERTED, "splat-lod")
PICTURED = ("nerfstudio", "colmap", "webdataset", "hf")
"""Formats that hold rendered views."""
MESHES = ("glb", "usd", "usdz")
METRIC = (*MESHES, "splat-glb")
"""Formats that are written in metres where a size is known."""


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """One format, and what it depends on."""

    format: Format
    """ply, compressed-ply, splat, spz, sog, splat-lod, splat-glb, html: the Gaussians; glb, usd, usdz: the triangle
    mesh; nerfstudio, colmap, webdataset, hf: rendered views with depth, normals, masks and cameras, as a folder an
    asset, as tar shards, or as parquet for `datasets`."""
    size: int = 128
    """Side of rendered views in pixels, in [16, 2048]."""
    num_views: int = PAPER_VIEWS
    """Views of a turn, at uniform azimuths, >= 1."""
    elevations_degrees: tuple[float, ...] = ()
    """One turn of views at each of these, in (-90, 90); empty for one at the asset's own elevation."""
    shard_assets: int = 64
    """Assets in a tar shard or parquet file, >= 1."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How a mesh is made for glb where the run has none."""
    lods: tuple[float, ...] = ()
    """Coarser levels of detail by their share of the triangles or Gaussians, in (0, 1) and falling: glb, splat-lod."""
    spz_version: Literal[3, 4] = 3
    """Version of SPZ; many readers know no 4."""
    size_metres: float | None = None
    """Longest side of every asset, > 0, for glb, usd, usdz and splat-glb; None: the column `size_metres` of the table
    of prompts, and where it has none, units in which the object lies in the unit sphere."""
    splat_transform: str = "splat-transform"
    """The program of the npm package @playcanvas/splat-transform, by name or path."""
    pool: Pool = field(default_factory=lambda: Pool(actors=available_cpus()))
    """The exporting actors."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise UserError(f"size is {self.size}; it must lie in [16, 2048] pixels")
        if self.num_views < 1 or self.shard_assets < 1:
            raise UserError(f"num_views is {self.num_views}, shard_assets {self.shard_assets}; both must be at least 1")
        if any(not 0 < share < 1 for share in self.lods) or list(self.lods) != sorted(set(self.lods), reverse=True):
            raise UserError(f"lods are {list(self.lods)}; give falling shares in (0, 1), such as 0.5 0.25")
        if self.format == "splat-lod" and not self.lods:
            raise UserError("format splat-lod needs its levels: give --lods, such as --lods 0.5 0.25")
        if self.size_metres is not None and not 0 < self.size_metres < float("inf"):
            raise UserError(f"size_metres is {self.size_metres}; it must be a length > 0")
        wrong = [angle for angle in self.elevations_degrees if not -90 < angle < 90]
        if wrong:
            raise UserError(f"elevations_degrees holds {wrong}; each must lie in (-90, 90)")

    def identity(self) -> dict[str, Any]:
        """The settings that the files of this format depend on."""
        names: tuple[str, ...] = ("format",)
        if self.format in PICTURED:
            names += ("size", "num_views", "elevations_degrees")
        if self.format in ("webdataset", "hf"):
            names += ("shard_assets",)
        if self.format in MESHES:
            names += ("mesh",)
        if self.format in ("glb", "splat-lod"):
            names += ("lods",)
        if self.format in METRIC:
            names += ("size_metres",)
        if self.format == "spz":
            names += ("spz_version",)
        values = asdict(self)
        return {name: values[name] for name in names}
