"""Caption and judge the assets of row groups: the stages `CaptionGroup` and `JudgeGroup` of `im3d curate`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory.line.stage import Row
from factory.training.shards.row_group_line import GROUP_RESULT, GroupStage

Item = TypeVar("Item")
BATCH = 64
SIDE = 96
"""Pixels of the pictures that people look at."""

_VERDICT = pa.struct(
    [
        *[(name, pa.string()) for name in ("asset_id", "split")],
        *[("total", pa.float64()), ("num_views", pa.int32())],  # sum of the views' scores
    ]
)
VERDICTS = pa.schema([*GROUP_RESULT, ("verdicts", pa.list_(_VERDICT)), ("pictures", pa.map_(pa.string(), pa.binary()))])
"""Row groups judged: their assets, and a PNG of the first view of each."""
CAPTIONS = pa.schema([*GROUP_RESULT, ("captions", pa.map_(pa.string(), pa.string()))])


class CaptionGroup(GroupStage):
    """Captions of the assets of a row group from the first view of each; `config`: see `CaptionerConfig`."""

    name, schema = "caption", CAPTIONS

    def load(self) -> None:
        from model.captioner import Captioner

        self.captioner = Captioner(self.config, self.device())

    def make(self, row: Row) -> Row:
        """`captions` by asset; of those without one, unless all are replaced."""
        made = dict[str, str]()
        for group in batches(self._views(row)):
            assets, pictures = zip(*group, strict=True)
            made |= zip(assets, self.captioner(pictures), strict=True)
        return {"captions": made, "problems": self.problems}

    def _views(self, row: Row) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        seen = set[str]()
        for known, turntable in self.turntables(row):
            asset, view = known["asset_id"], None
            if asset in seen or (turntable.caption and not self.config.replace):
                continue
            with self.recording_problems(row, known["number"]):
                view = turntable.frame(0)[..., :3]
            if view is not None:
                seen.add(asset)
                yield asset, view


class JudgeGroup(GroupStage):
    """Score of the assets of a row group; `config`: a `ClipConfig` and the views a turntable."""

    name, schema = "judge", VERDICTS

    def load(self) -> None:
        from eval.clip import Scorer
        from factory.weights.folder import local_judge

        clip, self.views = self.config
        self.scorer = Scorer.load(local_judge(clip), self.device())

    def make(self, row: Row) -> Row:
        """`verdicts`, one an asset: the sum of its views' scores and how many they are; and `pictures` by asset."""
        found, pictures = dict[str, Row](), dict[str, bytes]()
        for group in batches(self._views(row)):
            scores = self.scorer.text_similarity([view for _, view in group], [known["caption"] for known, _ in group])
            for (known, view), score in zip(group, scores.tolist(), strict=True):
                asset = known["asset_id"]
                if asset not in found:
                    found[asset] = {"asset_id": asset, "split": known["split"], "total": 0.0, "num_views": 0}
                    pictures[asset] = thumbnail(view)
                found[asset]["total"] += score
                found[asset]["num_views"] += 1
        return {"verdicts": list(found.values()), "pictures": pictures, "problems": self.problems}

    def _views(self, row: Row) -> Iterator[tuple[Row, NDArray[np.uint8]]]:
        for known, turntable in self.turntables(row):
            known["caption"] = turntable.caption
            count = min(self.views, turntable.count)
            for number in range(count):
                view = None
                with self.recording_problems(row, known["number"]):
                    view = turntable.frame(number * turntable.count // count)[..., :3]
                if view is not None:
                    yield known, view


def thumbnail(view: NDArray[np.uint8]) -> bytes:
    """A view uint8 [S,S,3] as a small PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(view).resize((SIDE, SIDE)).save(stream, "PNG")
    return stream.getvalue()


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of BATCH items, the last one shorter."""
    stream = iter(items)
    while batch := list(islice(stream, BATCH)):
        yield batch
