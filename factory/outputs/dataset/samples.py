"""Read an asset's files and make its row of the data set, each file read once: `Sampler`, `SCHEMA`."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa

from eval.score_columns import is_measure
from factory.ledger.finished_assets import read
from factory.ledger.schemas import IMAGE
from factory.outputs.dataset.settings import DatasetConfig
from factory.outputs.export_formats import files_of
from factory.outputs.export_settings import ExportConfig
from factory.storage.interface import StorageConfig

Row = dict[str, Any]
TEXTS = ("asset_id", "prompt_id", "prompt", "caption", "caption_by", "split", "run", "kind", "license", "models")
NUMBERS = (
    "elevation",
    "fov_degrees",
    "distance",
    "size_metres",
    "yield_score",
    "usable",
    "cost_dollars",
    "gpu_seconds",
)
COUNTS = ("seed", "num_gaussians", "num_views")
CLUSTERS = ("image_cluster", "text_cluster")
SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
SUFFIXES = {"splat-glb": "splat.glb"}


def schema_of(config: DatasetConfig) -> pa.Schema:
    """The columns of a data set; they do not depend on which runs it has."""
    fields = [
        *[(name, pa.string()) for name in TEXTS],
        *[(name, pa.int64()) for name in COUNTS],
        *[(name, pa.float64()) for name in NUMBERS],
        ("scores", SCORES),
        *[(name, pa.string()) for name in CLUSTERS],
        *[(name, kind) for name, kind in _pictures().items() if name in config.pictures],
        *([("transforms", pa.string())] if "views" in config.pictures else []),  # cameras of the views, JSON
        *[(column_of(kind), pa.large_binary()) for kind in config.formats],
    ]
    features: Row = {}
    if "image" in config.pictures:
        features["image"] = {"_type": "Image"}
    if "views" in config.pictures:
        features["views"] = {"_type": "List", "feature": {"_type": "Image"}}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _pictures() -> dict[str, pa.DataType]:
    return {"image": IMAGE, "views": pa.list_(IMAGE), "turntable": pa.large_binary()}


def column_of(kind: str) -> str:
    """The column of a format, as `splat_glb`."""
    return kind.replace("-", "_")


class Sampler:
    """Rows of the data set.

    Args:
        config: what it holds.
        roots: the folder of each run by its label.
        storage: how folders are reached.
    """

    def __init__(self, config: DatasetConfig, roots: dict[str, str], storage: StorageConfig) -> None:
        self.config, self.storage, self._roots = config, storage, roots
        self._exports = [ExportConfig(format=kind, splat_transform=config.splat_transform) for kind in config.formats]

    def finished(self, about: Row) -> Row:
        """A collected row as one of `factory.ledger.finished_assets.FINISHED`."""
        files = {name: about.get(f"{name}_path") for name in ("ply", "mesh", "image", "turntable", "transforms")}
        return about | files | {"root": self._roots[about["run"]], "size_metres": about.get("size_metres")}

    def picture(self, about: Row) -> bytes:
        """The picture that an asset was made from; ValueError where it is missing."""
        row = self.finished(about)
        if not row["image"]:
            raise ValueError(f"{row['prompt_id']} has no picture to compare it by")
        return read(row, "image", self.storage)

    def row(self, about: Row, picture: bytes) -> Row:
        """The row of an asset, its files among it.

        Raises:
            ValueError: for a file that is missing or has changed.
        """
        known = {name: about.get(name) for name in (*TEXTS, *COUNTS, *NUMBERS, *CLUSTERS)}
        measures = sorted(name for name, value in about.items() if value is not None and is_measure(name))
        known["scores"] = [{"name": name, "value": about[name]} for name in measures]
        row = self.finished(about)
        if "image" in self.config.pictures:
            known["image"] = {"bytes": self._scaled(picture), "path": f"{about['asset_id']}.png"}
        if "views" in self.config.pictures:
            known |= self._views(row)
        if "turntable" in self.config.pictures:
            known["turntable"] = read(row, "turntable", self.storage) if row["turntable"] else None
        for export in self._exports:
            (data,) = files_of(row, export, self.storage).values()
            known[column_of(export.format)] = data
        return known

    def _views(self, row: Row) -> Row:
        if not row["transforms"]:
            return {"views": [], "transforms": None}
        text = read(row, "transforms", self.storage)
        folder = row["transforms"].rpartition("/")[0]
        names = [frame["file_path"] for frame in json.loads(text)["frames"]]
        views = [read(row | {"view": f"{folder}/{name}"}, "view", self.storage) for name in names]
        pictures = [{"bytes": self._scaled(data), "path": name} for data, name in zip(views, names)]
        return {"views": pictures, "transforms": self._scaled_cameras(text)}

    def _scaled(self, data: bytes) -> bytes:
        """A picture of the wanted side as PNG; the same bytes where it has it already."""
        from PIL import Image

        if self.config.size is None:
            return data
        try:
            with Image.open(io.BytesIO(data)) as picture:
                longest = max(picture.size)
                if longest == self.config.size:
                    return data
                sides = [max(1, round(side * self.config.size / longest)) for side in picture.size]
                scaled = picture.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        except OSError as error:
            raise ValueError(f"a picture cannot be decoded: {error}; make the asset again") from error
        stream = io.BytesIO()
        scaled.save(stream, "PNG")
        return stream.getvalue()

    def _scaled_cameras(self, text: bytes) -> str:
        """`transforms.json` with the intrinsics of the scaled views."""
        cameras = json.loads(text)
        if self.config.size is not None:
            factor = self.config.size / max(cameras["w"], cameras["h"])
            cameras |= {name: cameras[name] * factor for name in ("fl_x", "fl_y", "cx", "cy")}
            cameras |= {name: round(cameras[name] * factor) for name in ("w", "h")}
        return json.dumps(cameras)
