"""Choose the assets to train on, whose pictures agree best with their captions by CLIP (3.2): `choose`.

    renders/*.parquet ──▶ CaptionGroup ──▶ captions of assets that have none
                      ──▶ JudgeGroup ────▶ score and picture of each asset ──▶ curated.parquet, curated.html

Nothing is deleted: `im3d finetune` leaves out what is not kept. The work is done by a line of Ray Data, row group by
row group, and kept below `curation/`, so that a run goes on where it was cut and another choice judges nothing anew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from factory.ledger.keys import digest
from factory.ledger.reader import LedgerReader
from factory.line.cost import CostConfig
from factory.line.output_folder import open_output
from factory.line.settings import LineConfig
from factory.prompts.assets import split_of
from factory.storage.interface import StorageConfig, Store
from factory.storage.read_only import open_read_only
from factory.training.curate.settings import CurateConfig
from factory.training.curate.stages import CaptionGroup, JudgeGroup
from factory.training.shards.index import CURATED, Chunk, Index
from factory.training.shards.row_group_line import ROWS_PER_PART, GroupStage, named_groups, results, run_groups
from recon.user_error import UserError

if TYPE_CHECKING:
    from eval.config import ClipConfig
    from model.captioner import CaptionerConfig


@dataclass(kw_only=True, slots=True)
class Verdict:
    """What was found about an asset."""

    asset_id: str
    caption: str
    score: float
    split: str
    kept: bool = False


@dataclass(kw_only=True, slots=True)
class Curation:
    """The work on the shards of one folder.

    Attributes:
        groups: the row groups by name. captions: by asset, those of the table and those made.
        problems: what could not be read so far, and why.
    """

    store: Store
    index: Index
    config: CurateConfig
    storage: StorageConfig
    line: LineConfig
    prices: CostConfig
    problems: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Chunk] = field(init=False)
    captions: dict[str, str] = field(init=False)
    captioned_by: tuple[str, ...] = ()
    """Who wrote the captions, beside the table."""

    def __post_init__(self) -> None:
        self.groups, self.captions = named_groups(self.index), dict(self.index.captions)

    def caption(self, captioner: CaptionerConfig, revision: str) -> int:
        """Let an image-to-text model caption the assets that have none, or all; returns how many it did."""
        if all(self.captions.values()) and not captioner.replace:
            return 0
        self.captioned_by = (revision, str(captioner.max_tokens), str(captioner.replace))
        place = self._place("captions", *self.captioned_by)
        self._run_stage(CaptionGroup, "captions", place, captioner)
        made: dict[str, str] = {}
        for row in sorted(self._results("captions", place), key=lambda row: row["group_id"]):
            made = dict(row["captions"]) | made
        wanted = {asset for asset, caption in self.captions.items() if captioner.replace or not caption}
        self.captions |= {asset: caption for asset, caption in made.items() if asset in wanted}
        return len(wanted & made.keys())

    def judge(self, clip: ClipConfig, revision: str) -> list[Verdict]:
        """The mean score of each asset's views, best first."""
        place = self._verdicts(revision)
        self._run_stage(JudgeGroup, "verdicts", place, (clip, self.config.views))
        sums: dict[str, tuple[float, int, str]] = {}
        for row in self._results("verdicts", place):
            for part in row["verdicts"]:
                asset = part["asset_id"]
                own = split_of(asset, part["split"])
                total, count, split = sums.get(asset, (0.0, 0, own))
                sums[asset] = (total + part["total"], count + part["num_views"], min(own, split))
        verdicts = [
            Verdict(asset_id=asset, caption=self.captions[asset], score=total / count, split=split)
            for asset, (total, count, split) in sums.items()
        ]
        return sorted(verdicts, key=lambda verdict: (-verdict.score, verdict.asset_id))

    def pictures(self, assets: set[str], revision: str) -> dict[str, bytes]:
        """PNGs of some assets' first views, as `judge` kept them."""
        found: dict[str, bytes] = {}
        for row in self._results("verdicts", self._verdicts(revision), "pictures"):
            for asset, picture in row["pictures"]:
                if asset in assets:
                    found.setdefault(asset, picture)
        return found

    def _verdicts(self, revision: str) -> str:
        return self._place("verdicts", revision, str(self.config.views), *self.captioned_by)

    def _place(self, kind: str, *about: str) -> str:
        """The folder of results of one kind."""
        return f"{self.store.root}/curation/{kind}-{digest(*about)}"

    def _results(self, kind: str, place: str, column: str | None = None) -> Iterator[dict[str, Any]]:
        return results(LedgerReader(open_read_only(place, self.storage), kind), self.groups, column or kind)

    def _run_stage(self, stage: type[GroupStage], kind: str, place: str, config: Any) -> None:
        with open_output(place, self.storage, kind, ROWS_PER_PART) as folder:
            self.problems |= run_groups(
                self.groups, stage, self.line, self.config.pool, folder, self.prices,
                config=config, root=self.store.root, captions=self.captions, storage=self.storage,
            )  # fmt: skip


def choose(verdicts: Sequence[Verdict], config: CurateConfig) -> None:
    """Mark what is kept: the best training assets, and all for validation, so that other choices compare.

    Args:
        verdicts: best first.

    Raises:
        ValueError: when nothing would be trained on.
    """
    if not verdicts:
        raise UserError("no picture of the renders could be read; see the reasons above, and render them again")
    training = [verdict for verdict in verdicts if verdict.split == "train"]
    for verdict in verdicts:
        verdict.kept = verdict.split != "train"
    for verdict in training[: config.best]:
        verdict.kept = config.threshold is None or verdict.score >= config.threshold
    if training and not training[0].kept:
        raise UserError(f"threshold {config.threshold} keeps none of {len(training)} training assets, of which the "
                        f"best has {training[0].score:.1f}; lower it, or give --best N alone")  # fmt: skip


def write(store: Store, verdicts: Sequence[Verdict], model: str) -> None:
    """Write the table; the score's column carries the model's name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"asset_id": v.asset_id, "caption": v.caption, f"clip_text_{model}": v.score, "kept": v.kept, "split": v.split}
        for v in sorted(verdicts, key=lambda v: v.asset_id)
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, write_page_checksum=True)
    store.put(CURATED, stream.getvalue())
