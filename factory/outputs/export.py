"""Export finished assets to other formats in a line of one stage: `Export`.

assets ── Export ──▶ <format>/<prompt_id>…, and a row of exports/*.parquet (hf: of data/), or a dead letter there
          read, convert or render, commit
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.finished_assets import read, table
from factory.ledger.ledger import file_entry
from factory.ledger.schemas import ERROR, FILE, chosen
from factory.line.one_stage_line import SingleStage
from factory.line.stage import Row
from factory.line.step import Step
from factory.outputs import training_formats
from factory.outputs.export_formats import files_of, image_of, parsed
from factory.outputs.export_settings import ExportConfig
from factory.storage.interface import StorageConfig, Store

EXPORTS, DATA, SHARDS = "exports", "data", "shards"
EXPORTED = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        *[(name, pa.string()) for name in ("prompt", "format")],
        ("files", pa.list_(FILE)),
        ("seconds_export", pa.float64()),
        *[(name, pa.string()) for name in ("host", "run_id")],
    ]
)
EXPORT_DEAD_LETTERS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        *ERROR,
        ("attempt", pa.int32()),
        *[(name, pa.string()) for name in ("host", "run_id")],
    ]
)


def results_of(config: ExportConfig) -> str:
    """The folder that the ledger publishes to: a dataset's rows are the dataset itself."""
    return DATA if config.format == "hf" else EXPORTS


@dataclass(kw_only=True, slots=True)
class ExportWork:
    """Finished assets as `work.Work`."""

    assets: Sequence[Row]

    @property
    def ids(self) -> Sequence[str]:
        return [asset["prompt_id"] for asset in self.assets]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return table(self.assets[row] | {"attempt": attempt} for row in rows)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return chosen(self.assets[row] | error, EXPORT_DEAD_LETTERS), EXPORT_DEAD_LETTERS


def steps(config: ExportConfig, out: str, run_id: str, storage: StorageConfig) -> list[Step]:
    """The chain: one stage."""
    arguments = {"config": config, "out": out, "run_id": run_id, "storage": storage}
    return [Step(actor=Export, pool=config.pool, arguments=arguments)]


class Export(SingleStage):
    """An asset to the files of one format, committed as a row, or as a dead letter.

    Args:
        config: the format; `splat_transform` is a path.
        out: folder of this format, local or s3://. run_id: which run this is.
        storage: how it and the assets are reached.
    """

    name, dead_letters, passing = "export", EXPORT_DEAD_LETTERS, OSError

    def load(self) -> None:
        self.schema = training_formats.HF_ROWS if self.config.format == "hf" else EXPORTED

    def make(self, row: Row) -> Row:
        """Write the asset's files; returns its row. ValueError for an asset that cannot be exported."""
        if self.config.format == "hf":
            return self._hf_row(row)
        files = files_of(row, self.config, self.storage)
        for name, data in files.items():
            self.store.put(name, data)
        return {"format": self.config.format, "files": [file_entry(name, data) for name, data in files.items()]}

    def _hf_row(self, row: Row) -> Row:
        ply = read(row, "ply", self.storage)
        pictures = training_formats.pictures_of(parsed(ply, row), row["elevation"], self.config)
        return training_formats.hf_row(row, pictures, ply, image_of(row, self.storage))


def gather_shards(store: Store) -> list[str]:
    """Join the samples of each part of `exports` to a tar of the same number, then delete them.

    Call it after every run: what a crash left out is made up for. Returns the names of all shards.
    """
    known = set(store.keys(f"{SHARDS}/"))
    for part in list(store.keys(f"{EXPORTS}/")):
        shard = f"{SHARDS}/{part.rsplit('/', 1)[1].replace('part', 'shard').replace('.parquet', '.tar')}"
        rows = pq.read_table(io.BytesIO(store.get(part)), columns=["files"]).to_pylist()
        samples = [entry["path"] for row in rows for entry in row["files"]]
        if shard not in known:
            store.put(shard, join_tars([store.get(sample) for sample in samples]))
        for sample in samples:
            store.delete(sample)
    return list(store.keys(f"{SHARDS}/"))


def join_tars(archives: Sequence[bytes]) -> bytes:
    """One tar with the members of all, in order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as joined:
        for archive in archives:
            with tarfile.open(fileobj=io.BytesIO(archive)) as source:
                for entry in source:
                    joined.addfile(entry, source.extractfile(entry))
    return stream.getvalue()
