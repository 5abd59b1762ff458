"""Whether pools fit a cluster, and what the growing one gets."""

from __future__ import annotations

import pytest

from factory.config.settings import FactoryConfig, preset
from factory.line.placement import Node, Pool, check_nodes, place
from factory.stages.chain import BUILT_IN, pools_of

GROWING = [name for name, stage in BUILT_IN.items() if stage.grows]


def paper() -> dict[str, Pool]:
    return pools_of(preset("paper"))


def test_reconstruction_takes_what_the_others_leave() -> None:
    placed, lines = place(paper(), cpus=96, gpus=8, growing=GROWING)
    assert {name: pool.max_actors for name, pool in placed.items() if name != "reconstruct"} == {
        name: 1 for name in BUILT_IN if name != "reconstruct"
    }
    assert placed["reconstruct"].max_actors == 1 + 44  # (8 - 6 * 0.16) / 0.16 GPUs
    assert any(line.startswith("reconstruct: 1 to 45 actors") for line in lines)
    used = sum((pool.max_actors or 0) * pool.gpus for pool in placed.values())
    assert used <= 8 + 1e-6


def test_two_that_grow_share_alike() -> None:
    pools = {"video": Pool(gpus=0.5), "reconstruct": Pool(gpus=0.25), "commit": Pool()}
    placed, _ = place(pools, cpus=96, gpus=8, growing=("video", "reconstruct"))
    assert [placed[name].max_actors for name in pools] == [1 + 7, 1 + 14, 1]  # 7.25 GPUs are left


def test_cpus_bound_the_growth_too() -> None:
    placed, _ = place(paper(), cpus=12, gpus=8, growing=GROWING)
    assert sum((pool.max_actors or 0) * pool.cpus for pool in placed.values()) <= 11


def test_given_sizes_stay() -> None:
    pools = paper() | {"reconstruct": Pool(gpus=0.2, actors=2, max_actors=5)}
    assert place(pools, cpus=96, gpus=8, growing=GROWING)[0]["reconstruct"].max_actors == 5
    pocket = pools_of(preset("pocket"))
    placed, _ = place(pocket, cpus=8, gpus=0, growing=GROWING, local=True)
    assert placed["reconstruct"].max_actors == pocket["reconstruct"].actors


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(RuntimeError, match=r"reserves 0.96 GPUs and the cluster has 0: lower line\.pools\.<stage>"):
        place(paper(), cpus=96, gpus=0)
    with pytest.raises(RuntimeError, match="CPUs and the cluster has 2"):
        place(paper(), cpus=2, gpus=8)
    assert place(paper(), cpus=0, gpus=0, growing=GROWING, autoscaling=True)[0]["reconstruct"].max_actors == 1


def test_a_stage_that_fits_on_no_node_is_refused_in_one_sentence() -> None:
    nodes = [Node(cpus=8, labels={}), Node(cpus=4, gpus=1, labels={"ray.io/accelerator-type": "L4"})]
    check_nodes(paper(), nodes)
    with pytest.raises(RuntimeError, match=r"none of 2 nodes has 6 CPUs, 0\.5 GPUs for an actor of stage video: mend"):
        check_nodes({"image": Pool(cpus=8), "video": Pool(cpus=6, gpus=0.5)}, nodes)
    with pytest.raises(RuntimeError, match=r"and the labels ray\.io/accelerator-type=H100 for an actor of stage video"):
        check_nodes({"video": Pool(labels=("ray.io/accelerator-type=H100",))}, nodes)


@pytest.mark.parametrize(
    ("selector", "held"),
    [("a=x", True), ("a=y", False), ("a=!y", True), ("a=!x", False), ("a=in(y, x)", True), ("a=!in(x,y)", False),
     ("b=x", False), ("b=!x", True), ("b=in(x)", False)],
)  # fmt: skip
def test_labels_are_compared_as_ray_does(selector: str, held: bool) -> None:
    assert Node(cpus=1, labels={"a": "x"}).holds(Pool(labels=(selector,))) == held


def test_embedded_line_fits_a_small_machine() -> None:
    pools = pools_of(FactoryConfig())
    place(pools | {"reconstruct": Pool(actors=16)}, cpus=8, gpus=0, local=True)
