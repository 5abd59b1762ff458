"""Seconds a row, measured in the first rows of a run or taken from the last one."""

from pathlib import Path

import pytest

from factory.line.pace import measured, measured_before, rows_to_measure
from factory.line.placement import Pool
from factory.line.run_report import save_report
from factory.line.settings import LineConfig
from factory.line.stage import Stage
from factory.line.step import Step
from factory.storage.store import LocalStore


class Slow(Stage):
    name, grows = "slow", True


class Still(Stage):
    name = "still"


def chain(gpus: float = 0.5, most: int | None = None) -> list[Step]:
    return [
        Step(actor=Slow, pool=Pool(gpus=gpus, max_actors=most), arguments={}),
        Step(actor=Still, pool=Pool(), arguments={}),
    ]


def test_a_long_run_whose_pools_grow_is_measured_first() -> None:
    placed, line = chain(most=12), LineConfig()
    assert rows_to_measure(chain(), placed, line, 480) == 24
    assert rows_to_measure(chain(), placed, line, 479) == 0
    assert rows_to_measure(chain(most=12), placed, line, 10_000) == 0  # as the settings say
    assert rows_to_measure(chain(gpus=0), placed, line, 10_000) == 0  # pools of CPUs keep their size on one machine
    assert rows_to_measure(chain(gpus=0), placed, LineConfig(address="auto"), 10_000) == 24
    assert rows_to_measure(chain(), placed, LineConfig(address="auto", autoscaling=True), 10_000) == 0
    assert rows_to_measure(chain(), chain(most=1), line, 10_000) == 0  # there is room for one


def test_the_last_run_tells_where_it_was_long_enough(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert measured_before(store, chain()) is None
    stages = {"slow": {"finished": 20, "model_seconds": 50.0}, "still": {"finished": 18, "model_seconds": 0.0}}
    save_report(store, {"finished": "2026-01-01T00:00:00", "run_id": "a", "stages": stages})
    pace = measured_before(store, chain())
    assert pace is not None
    assert pace.seconds == {"slow": 2.5, "still": pytest.approx(0.001)}
    assert pace.source == "measured over 18 rows of the last run"
    assert measured({"slow": (15, 9.0)}, "") is None
    save_report(store, {"finished": "2026-01-02T00:00:00", "run_id": "b", "stages": {"slow": stages["slow"]}})
    assert measured_before(store, chain()) is None  # another chain
