"""Whether pools fit a cluster, and how large they get."""

from __future__ import annotations

import pytest

from factory.config.settings import FactoryConfig, preset
from factory.line.layout import Pace, lay_out
from factory.line.placement import Node, Pool, check_nodes
from factory.stages.chain import BUILT_IN, pools_of

GROWING = [name for name, stage in BUILT_IN.items() if stage.grows]


def paper() -> dict[str, Pool]:
    return pools_of(preset("paper"))


PACE = Pace(seconds=dict.fromkeys(BUILT_IN, 1.0) | {"video": 2.0, "reconstruct": 4.0})


def nodes(cpus: float, gpus: float = 0) -> list[Node]:
    return [Node(cpus=cpus, gpus=gpus, labels={})]


@pytest.mark.parametrize("local", [False, True])
def test_eight_gpus_are_used_and_the_slowest_stage_is_named(local: bool) -> None:
    placed, lines = lay_out(paper(), nodes(96, 8), PACE, growing=GROWING, local=local)
    sizes = {name: pool.max_actors for name, pool in placed.items()}
    assert sizes == {"image": 5, "video": 10, "views": 5, "reconstruct": 18, "score": 5, "commit": 5}
    assert any(line.startswith("reconstruct: 1 to 18 actors") for line in lines)
    assert lines[-1].startswith("seconds a row, expected: image 1, video 2,")
    assert lines[-1].endswith("bottleneck reconstruct, at most 16,200 rows an hour")


def test_cpus_bound_the_growth_too() -> None:
    placed, _ = lay_out(paper(), nodes(12, 8), PACE, growing=GROWING)
    assert sum((pool.max_actors or 0) * pool.cpus for pool in placed.values()) <= 11


def test_given_sizes_stay() -> None:
    pools = paper() | {"reconstruct": Pool(gpus=0.2, actors=2, max_actors=5)}
    assert lay_out(pools, nodes(96, 8), PACE, growing=GROWING)[0]["reconstruct"].max_actors == 5
    pocket = pools_of(preset("pocket"))
    placed, _ = lay_out(pocket, nodes(64), PACE, growing=GROWING, local=True)
    assert {name: pool.max_actors for name, pool in placed.items()} == {n: p.actors for n, p in pocket.items()}


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"reserves 0.96 GPUs and the cluster has 0: lower line\.pools\.<stage>"):
        lay_out(paper(), nodes(96), PACE)
    with pytest.raises(RuntimeError, match="CPUs and the cluster has 2"):
        lay_out(paper(), nodes(2, 8), PACE)
    placed, _ = lay_out(paper(), [], PACE, growing=GROWING, autoscaling=True)
    assert placed["reconstruct"].max_actors == 1


def test_a_stage_that_fits_on_no_node_is_refused_in_one_sentence() -> None:
    there = [Node(cpus=8, labels={}), Node(cpus=4, gpus=1, labels={"ray.io/accelerator-type": "L4"})]
    check_nodes(paper(), there)
    with pytest.raises(RuntimeError, match=r"none of 2 nodes has 6 CPUs, 0\.5 GPUs .* of stage video: change"):
        check_nodes({"image": Pool(cpus=8), "video": Pool(cpus=6, gpus=0.5)}, there)
    with pytest.raises(RuntimeError, match=r"and the labels ray\.io/accelerator-type=H100 for an actor of stage video"):
        check_nodes({"video": Pool(labels=("ray.io/accelerator-type=H100",))}, there)


@pytest.mark.parametrize(
    ("selector", "held"),
    [("a=x", True), ("a=y", False), ("a=!y", True), ("a=!x", False), ("a=in(y, x)", True), ("a=!in(x,y)", False),
     ("b=x", False), ("b=!x", True), ("b=in(x)", False)],
)  # fmt: skip
def test_labels_are_compared_as_ray_does(selector: str, held: bool) -> None:
    assert Node(cpus=1, labels={"a": "x"}).holds(Pool(labels=(selector,))) == held


def test_embedded_line_fits_a_small_machine() -> None:
    pools = pools_of(FactoryConfig())
    lay_out(pools | {"reconstruct": Pool(actors=16)}, nodes(8), PACE, local=True)
