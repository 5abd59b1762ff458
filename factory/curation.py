"""Which assets are trained on: how well their pictures agree with their captions by CLIP, and the best of them (3.2).

    renders/*.parquet ──▶ CaptionGroup ──▶ captions of assets that have none
                      ──▶ JudgeGroup ────▶ score and picture of each asset ──▶ curated.parquet, curated.html

Nothing is deleted: `im3d finetune` leaves out what is not kept. The work is done by a line of Ray Data, row group by
row group, and kept below `curation/`, so that a run goes on where it was cut and another choice judges nothing anew.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from factory.curation_config import CurateConfig
from factory.curation_stages import CaptionGroup, JudgeGroup
from factory.keys import digest
from factory.ledger import Ledger
from factory.row_groups import ROWS_PER_PART, ChunkStage, go_through, results
from factory.shards import CURATED, Index, split_of
from factory.store import StorageConfig, Store, open_store

if TYPE_CHECKING:
    from eval.config import ClipConfig
    from factory.captions import CaptionerConfig


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
        problems: what could not be read so far, and why.
    """

    store: Store
    index: Index
    config: CurateConfig
    storage: StorageConfig
    problems: dict[str, str] = field(default_factory=dict)

    def caption(self, captioner: CaptionerConfig, revision: str) -> dict[str, str]:
        """Captions by an image-to-text model of the assets that have none, or of all, by asset."""
        if all(self.index.captions.values()) and not captioner.replace:
            return {}
        ledger = self._ledger("captions", revision, str(captioner.max_tokens), str(captioner.replace))
        self._go(CaptionGroup, ledger, captioner, {})
        made: dict[str, str] = {}
        for row in results(ledger, self.index.chunks, "captions"):
            for asset, caption in row["captions"]:
                made.setdefault(asset, caption)
        return made

    def judge(self, clip: ClipConfig, revision: str, captions: Mapping[str, str]) -> list[Verdict]:
        """The mean score of each asset's views, best first; `captions` go before those of the shards."""
        ledger = self._verdicts(revision, captions)
        self._go(JudgeGroup, ledger, (clip, self.config.views), captions)
        sums: dict[str, tuple[float, int]] = {}
        found: dict[str, Verdict] = {}
        for row in results(ledger, self.index.chunks, "verdicts"):
            for part in row["verdicts"]:
                asset = part["asset_id"]
                total, count = sums.get(asset, (0.0, 0))
                total, count = sums[asset] = total + part["total"], count + part["num_views"]
                known = {"asset_id": asset, "caption": part["caption"], "split": split_of(asset, part["split"])}
                found[asset] = Verdict(**known, score=total / count)
        return sorted(found.values(), key=lambda verdict: (-verdict.score, verdict.asset_id))

    def pictures(self, assets: set[str], revision: str, captions: Mapping[str, str]) -> dict[str, bytes]:
        """PNGs of some assets' first views, as `judge` kept them."""
        found: dict[str, bytes] = {}
        for row in results(self._verdicts(revision, captions), self.index.chunks, "pictures"):
            for asset, picture in row["pictures"]:
                if asset in assets:
                    found.setdefault(asset, picture)
        return found

    def _verdicts(self, revision: str, captions: Mapping[str, str]) -> Ledger:
        return self._ledger("verdicts", revision, str(self.config.views), digest(*sorted(map(str, captions.items()))))

    def _ledger(self, results: str, *about: str) -> Ledger:
        place = f"{self.store.root}/curation/{results}-{digest(*about)}"
        return Ledger(open_store(place, self.storage), results, ROWS_PER_PART)

    def _go(self, stage: type[ChunkStage], ledger: Ledger, config: Any, captions: Mapping[str, str]) -> None:
        self.problems |= go_through(
            self.index.chunks, stage, self.config.pool, self.config.address, ledger,
            config=config, root=self.store.root, captions=captions, storage=self.storage,
        )  # fmt: skip


def choose(verdicts: Sequence[Verdict], config: CurateConfig) -> None:
    """Mark what is kept: the best training assets, and all for validation, so that other choices compare.

    Args:
        verdicts: best first.

    Raises:
        ValueError: when nothing would be trained on.
    """
    if not verdicts:
        raise ValueError("no picture of the renders could be read; see the reasons above, and render them again")
    training = [verdict for verdict in verdicts if verdict.split == "train"]
    for verdict in verdicts:
        verdict.kept = verdict.split != "train"
    for verdict in training[: config.best]:
        verdict.kept = config.threshold is None or verdict.score >= config.threshold
    if training and not training[0].kept:
        raise ValueError(f"threshold {config.threshold} keeps none of {len(training)} training assets, of which the "
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
    pq.write_table(pa.Table.from_pylist(rows), stream)
    store.put(CURATED, stream.getvalue())
