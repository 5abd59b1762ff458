"""Set what a data set takes and holds: `DatasetConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eval.config import ClipConfig
from factory.outputs.export_settings import Format
from model.captioner import CaptionerConfig
from recon.user_error import UserError

ONE_FILE: tuple[Format, ...] = (
    "ply",
    "compressed-ply",
    "splat",
    "spz",
    "sog",
    "splat-glb",
    "glb",
    "usdz",
)  # fmt: skip
"""Formats that a data set can hold: those of one file an asset."""
PICTURES = ("image", "views", "turntable")
SPLITS = ("train", "validation", "test")
Pictures = Literal["image", "views", "turntable"]


@dataclass(kw_only=True, slots=True)
class DatasetConfig:
    """Which assets a data set takes, and what it holds of them."""

    where: str | None = None
    """Condition over any column of the runs' asset tables, in DuckDB's SQL, as "clip_text_renders_pocket > 25"."""
    licence_allow: tuple[str, ...] = ()
    """Licences of models, as apache-2.0 mit; an asset that needs another one is left out. Empty: all are taken."""
    image_threshold: float = 0.95
    """Cosine of image embeddings from which two assets belong to one cluster, in (0, 1]."""
    text_threshold: float = 0.95
    """Cosine of prompt embeddings from which two assets belong to one cluster, in (0, 1]."""
    drop: Literal["image", "text", "either", "none"] = "image"
    """Which clusters keep their first asset only. By text all seeds of a prompt but one would go."""
    validation: float = 0.05
    """Share of the prompts whose assets are the validation split, in [0, 1)."""
    test: float = 0.05
    """Share of the prompts whose assets are the test split, in [0, 1)."""
    formats: tuple[Format, ...] = ("ply",)
    """Files of each asset: ply, compressed-ply, splat, spz, sog, splat-glb, glb, usdz (see docs/export.md)."""
    pictures: tuple[Pictures, ...] = ("image", "views")
    """image: what the asset was made from; views: its renders with cameras; turntable: its video."""
    size: int | None = None
    """Side that image and views are scaled to, in [16, 2048] pixels; None: as they are, bytes untouched."""
    container: Literal["parquet", "webdataset"] = "parquet"
    """Parquet that `datasets` streams, or tar shards of WebDataset."""
    shard_mb: int = 256
    """MiB that are committed at a time, a shard for each split among them, in [1, 2048]."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Whose embeddings find near-duplicates."""
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    """Who writes captions of assets without a prompt; with `replace`, of all. Other captions are the prompts."""
    splat_transform: str = "splat-transform"
    """The program of the npm package @playcanvas/splat-transform, for spz, sog, splat-glb and compressed-ply."""

    def __post_init__(self) -> None:
        for name in ("image_threshold", "text_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie in (0, 1]")
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError(f"validation is {self.validation}, test {self.test}; give shares >= 0 with a sum below 1")
        if wrong := [name for name in self.formats if name not in ONE_FILE]:
            raise UserError(f"formats holds {wrong[0]}; a data set can hold {', '.join(ONE_FILE)}")
        if self.size is not None and not 16 <= self.size <= 2048:
            raise UserError(f"size is {self.size}; it must lie in [16, 2048] pixels")
        if not 1 <= self.shard_mb <= 2048:
            raise UserError(f"shard_mb is {self.shard_mb}; it must lie in [1, 2048]")

    def identity(self) -> dict[str, Any]:
        """What the files of a data set depend on."""
        return {"kind": "dataset"} | {name: value for name, value in asdict(self).items() if name != "splat_transform"}
