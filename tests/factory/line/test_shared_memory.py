"""Blocks on their way against the object store."""

from __future__ import annotations

from dataclasses import replace

from factory.config.settings import FactoryConfig, preset
from factory.line.placement import Pool
from factory.line.shared_memory import DATA_SHARE, bound, bytes_in_flight
from factory.pipeline import steps
from factory.stages.chain import pools_of

SIZES = {"image": 10, "video": 100, "commit": 0}
POOLS = {name: Pool() for name in SIZES}


def sizes_of(config: FactoryConfig) -> dict[str, int]:
    return {step.actor.name: step.row_bytes for step in steps(config, "out", "r")}


def test_rows_grow_from_stage_to_stage_until_they_are_committed() -> None:
    sizes = sizes_of(preset("paper"))
    assert sizes["video"] - sizes["image"] == 16 * 512 * 512 * 4
    assert sizes["score"] == sizes["reconstruct"] == max(sizes.values())  # what is rendered is written where it is made
    assert sizes["commit"] == 0


def test_each_actor_holds_what_waits_for_it_and_what_it_makes() -> None:
    assert bytes_in_flight(POOLS, 1, SIZES) == 10 + (2 * 10 + 100) + 2 * 100
    assert bytes_in_flight(POOLS, 3, SIZES) == 3 * bytes_in_flight(POOLS, 1, SIZES)
    many = POOLS | {"video": Pool(max_actors=5, batch=2)}
    assert bytes_in_flight(many, 1, SIZES) == 10 + 2 * 5 * (2 * 10 + 100) + 2 * 100


def test_blocks_shrink_until_they_fit() -> None:
    need = bytes_in_flight(POOLS, 1, SIZES)
    pools, rows, line = bound(POOLS, 8, SIZES, 8 * need / DATA_SHARE)
    assert (pools, rows, "would not fit" in line) == (POOLS, 8, False)
    _, rows, line = bound(POOLS, 8, SIZES, 5 * need / DATA_SHARE)
    assert (rows, "line.rows_per_block = 8 would not fit" in line, "spilled" in line) == (4, True, False)
    pools, rows, line = bound(POOLS, 8, SIZES, 0.9 * need / DATA_SHARE)
    assert (rows, {pool.in_flight for pool in pools.values()}, "spilled" in line) == (1, {1}, False)
    assert "they will be spilled to disk" in bound(POOLS, 8, SIZES, 10)[2]


def test_presets_fit_the_store_of_one_machine() -> None:
    for name, store in (("pocket", 1 << 30), ("paper", 4 << 30)):  # the latter's batches on a GPU want more
        config = preset(name)
        pools = pools_of(config) | {"reconstruct": replace(pools_of(config)["reconstruct"], actors=4)}
        _, rows, line = bound(pools, config.line.rows_per_block, sizes_of(config), store)
        assert (rows, "spilled" in line) == (config.line.rows_per_block, False), line
