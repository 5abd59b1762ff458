"""Set an export's format and what it depends on: `ExportConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from factory.line.cpus import available_cpus
from factory.line.placement import Pool
from recon.config import MeshConfig

Format = Literal["ply", "splat", "spz", "sog", "html", "glb", "nerfstudio", "webdataset", "hf"]
CONVERTED = ("spz", "sog", "html")
"""Formats that splat-transform writes."""
PICTURED = ("nerfstudio", "webdataset", "hf")
"""Formats that hold rendered views."""


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """One format, and what it depends on."""

    format: Format
    """ply, splat, spz, sog, html: the Gaussians; glb: the triangle mesh; nerfstudio, webdataset, hf: rendered views
    with depth, normals, masks and cameras, as a folder an asset, as tar shards, or as parquet for `datasets`."""
    size: int = 128
    """Side of rendered views in pixels, in [16, 2048]."""
    num_views: int = 16
    """Views of a turn, at uniform azimuths, >= 1."""
    elevations_degrees: tuple[float, ...] = ()
    """One turn of views at each of these, in (-90, 90); empty for one at the asset's own elevation."""
    shard_assets: int = 64
    """Assets in a tar shard or parquet file, >= 1."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How a mesh is made for glb where the run has none."""
    splat_transform: str = "splat-transform"
    """The program of the npm package @playcanvas/splat-transform, by name or path."""
    pool: Pool = field(default_factory=lambda: Pool(actors=available_cpus()))
    """The exporting actors."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}; it must lie in [16, 2048] pixels")
        if self.num_views < 1 or self.shard_assets < 1:
            raise ValueError(
                f"num_views is {self.num_views}, shard_assets {self.shard_assets}; both must be at least 1"
            )
        wrong = [angle for angle in self.elevations_degrees if not -90 < angle < 90]
        if wrong:
            raise ValueError(f"elevations_degrees holds {wrong}; each must lie in (-90, 90)")

    def identity(self) -> dict[str, Any]:
        """The settings that the files of this format depend on."""
        names: tuple[str, ...] = ("format",)
        if self.format in PICTURED:
            names += ("size", "num_views", "elevations_degrees")
        if self.format in ("webdataset", "hf"):
            names += ("shard_assets",)
        if self.format == "glb":
            names += ("mesh",)
        values = asdict(self)
        return {name: values[name] for name in names}
