"""How a cluster is divided among stages by their seconds a row."""

from __future__ import annotations

import itertools
import random

import pytest

from factory.config.settings import preset
from factory.line.growth import bottleneck, grown, rows_an_hour
from factory.line.placement import Node, Pool
from factory.stages.chain import BUILT_IN, pools_of

SECONDS = {"image": 4.0, "video": 15.0, "views": 2.0, "reconstruct": 45.0, "score": 1.0, "commit": 0.2}
GROWING = [name for name, stage in BUILT_IN.items() if stage.grows]


def box(gpus: int, cpus: float = 200.0) -> Node:
    return Node(cpus=cpus, gpus=gpus, labels={})


def best_rate(pools: dict[str, Pool], seconds: dict[str, float], slots: int) -> float:
    """The fastest line of actors of equal shares on `slots` places, every division tried."""
    names = list(pools)
    best = 0.0
    for counts in itertools.product(range(1, slots), repeat=len(names)):
        if sum(counts) <= slots:
            best = max(best, rows_an_hour(dict(zip(names, counts)), seconds))
    return best


@pytest.mark.parametrize("gpus", [8, 64])
@pytest.mark.parametrize("size", [1, 8])
def test_the_papers_line_uses_every_gpu_in_proportion(gpus: int, size: int) -> None:
    """Actors of 0.16 GPU, six a card: with seconds T in all, no line makes more than slots / T rows a second."""
    pools = pools_of(preset("paper"))
    counts = grown(pools, SECONDS, [box(size) for _ in range(gpus // size)], GROWING)
    slots = 6 * gpus
    best = 3600 * slots / sum(SECONDS.values())
    assert sum(counts.values()) <= slots
    assert rows_an_hour(counts, SECONDS) >= 0.9 * best
    assert counts["reconstruct"] > counts["video"] > counts["image"] > counts["commit"]


def test_no_division_is_faster() -> None:
    draw = random.Random(7)
    for _ in range(30):
        pools = {name: Pool(gpus=0.5) for name in ("image", "video", "reconstruct")}
        seconds = {name: draw.uniform(0.5, 30) for name in pools}
        counts = grown(pools, seconds, [box(4), box(4)], list(pools))
        assert rows_an_hour(counts, seconds) == pytest.approx(best_rate(pools, seconds, 16))


def test_one_stage_on_whole_gpus_and_others_on_shares() -> None:
    pools = {"video": Pool(gpus=1.0), "reconstruct": Pool(gpus=0.5), "commit": Pool(cpus=0.25)}
    counts = grown(pools, {"video": 10, "reconstruct": 10, "commit": 0.1}, [box(8)], ["video", "reconstruct"])
    assert counts == {"video": 5, "reconstruct": 5, "commit": 1}
    assert grown({"video": Pool(gpus=2.0)}, {"video": 1.0}, [box(3), box(3)], ["video"]) == {"video": 2}


def test_growth_ends_at_what_is_set_at_cpus_and_at_labels() -> None:
    pools = {"video": Pool(gpus=0.5, max_actors=2), "reconstruct": Pool(gpus=0.5)}
    assert grown(pools, {"video": 9, "reconstruct": 1}, [box(8)], list(pools)) == {"video": 2, "reconstruct": 1}
    assert grown({"fit": Pool(cpus=4)}, {"fit": 1.0}, [box(0, 16)], ["fit"]) == {"fit": 3}  # one CPU is left
    there = [box(8), Node(cpus=64, gpus=8, labels={"kind": "big"})]
    pools = {"video": Pool(gpus=1.0, labels=("kind=big",))}
    assert grown(pools, {"video": 1.0}, there, ["video"]) == {"video": 8}
    assert bottleneck({"a": 2, "b": 1}, {"a": 5.0, "b": 3.0}) == "b"
