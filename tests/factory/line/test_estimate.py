"""Estimates of a whole table against closed forms and simulated runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from factory.line.cost import CostConfig
from factory.line.estimate import Range, Sample, choose, estimate, total
from factory.line.placement import Pool

POOLS = {"image": Pool(gpus=0.25, cpus=1), "reconstruct": Pool(actors=2, gpus=0.5, cpus=1), "commit": Pool(cpus=1)}


def sample(**changes) -> Sample:
    values = {"prompts": 4, "sizes": [1e6] * 4, "forwards": [64.0] * 4, "loading": 30.0}
    values["seconds"] = {"image": [2.0] * 4, "reconstruct": [50.0] * 4, "commit": [1.0] * 4}
    return Sample(**(values | changes))


def test_a_total_is_students_interval_of_the_mean_times_the_rows() -> None:
    values = [10.0, 14.0, 9.0, 20.0, 13.0]
    found = total(values, 10**9)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found.mid == pytest.approx(1e9 * np.mean(values))
    assert (found.low / 1e9, found.high / 1e9) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))


def test_a_sample_of_everything_leaves_no_doubt() -> None:
    assert total([1.0, 2.0, 6.0], 3) == Range(low=9.0, mid=9.0, high=9.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        population = random.gamma(20, 2, 60)
        found = total(random.permutation(population)[:12].tolist(), 60)
        held += found.low <= population.sum() <= found.high
    assert 0.92 < held / 400 < 0.98


def test_the_run_waits_for_the_stage_that_is_slowest_by_actor() -> None:
    found = estimate(sample(), 1000, CostConfig(), POOLS)
    assert found.slowest == "reconstruct"
    assert found.seconds.mid == 1000 * 50 / 2 + 30 + 2 + 1
    assert found.seconds.low == found.seconds.high == found.seconds.mid  # the sampled rows were all alike
    grown = dict(POOLS, reconstruct=Pool(actors=2, max_actors=10, gpus=0.5, cpus=1))
    assert estimate(sample(), 1000, CostConfig(), grown).seconds.mid == 1000 * 50 / 10 + 30 + 2 + 1
    assert estimate(sample(), 1000, CostConfig(), grown).actors["reconstruct"] == 10
    many = dict(POOLS, reconstruct=Pool(actors=50, gpus=0.5, cpus=1))
    assert estimate(sample(), 1000, CostConfig(), many).slowest == "image"


def test_cost_is_of_all_actors_from_start_to_end() -> None:
    prices = {"gpu_hour_price": 3.6, "cpu_hour_price": 0.36, "storage_gb_month_price": 0.02}
    found = estimate(sample(), 1000, CostConfig(**prices), POOLS)
    second = (0.25 + 2 * 0.5) * 0.001 + 4 * 0.0001
    assert found.dollars.mid == pytest.approx(found.seconds.mid * second)
    image, reconstruct, commit = 2000 * (0.25 * 0.001 + 0.0001), 50_000 * (0.5 * 0.001 + 0.0001), 1000 * 0.0001
    assert found.model_dollars.mid == pytest.approx(image + reconstruct + commit)
    assert found.size.mid == 1000 * 1e6
    assert found.storage_dollars.mid == pytest.approx(0.02)
    assert found.forwards.mid == 64_000


def test_yield_bears_on_storage() -> None:
    half = sample(prompts=8)
    found = estimate(half, 1000, CostConfig(), POOLS)
    assert found.share.mid == 0.5
    assert found.share.low < 0.25 < 0.75 < found.share.high
    assert found.size.mid == 500e6
    assert found.size.low == pytest.approx(1e9 * found.share.low)
    everything = estimate(sample(prompts=4, sizes=[1e6] * 2), 4, CostConfig(), POOLS)
    assert everything.share == Range(low=0.5, mid=0.5, high=0.5)


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 4 sampled prompts made an asset"):
        estimate(sample(sizes=[1.0]), 10, CostConfig(), POOLS)
    ids = [f"p{k}" for k in range(5)]
    with pytest.raises(ValueError, match="a dry run of 1 prompts tells no spread"):
        choose(ids, 1)
    with pytest.raises(ValueError, match="at least 2"):
        choose(ids[:1], 3)


def test_the_sample_is_the_same_in_any_order_and_spread_over_the_table() -> None:
    ids = [f"p{k:04d}" for k in range(2000)]
    chosen = choose(ids, 400)
    assert choose(ids[::-1], 400) == chosen
    assert len(choose(ids[:3], 10)) == 3
    halves = sum(int(name[1:]) < 1000 for name in chosen)
    assert 150 < halves < 250
