"""Seconds times what actors hold times prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.config.settings import FactoryConfig, fingerprint
from factory.line.board import Board
from factory.line.cost import CostConfig, row_cost, run_dollars
from factory.line.pool_flags import Pools
from factory.line.run_report import newest_report, report_section, report_table, run_report, save_report
from factory.line.settings import LineConfig
from factory.line.tally import Tally
from factory.stages.chain import BUILT_IN, pools_of
from factory.storage.local import LocalStore


@pytest.fixture
def config() -> FactoryConfig:
    pools = Pools(all={"cpus": 1}, image={"gpus": 0.25}, video={"gpus": 0.5}, reconstruct={"gpus": 1, "cpus": 2})
    return FactoryConfig(
        line=LineConfig(pools=pools),
        cost=CostConfig(gpu_hour_price=3.6, cpu_hour_price=0.36),
    )


def test_an_asset_pays_for_what_its_stages_held(config: FactoryConfig) -> None:
    row = {"seconds_image": 4.0, "seconds_video": 10.0, "seconds_views": 1.0, "seconds_reconstruct": 20.0}
    cost = row_cost(row | {"seconds_score": None}, pools_of(config), config.cost)
    assert cost["actor_seconds"] == 35
    assert cost["gpu_seconds"] == 4 * 0.25 + 10 * 0.5 + 20
    assert cost["cpu_seconds"] == 4 + 10 + 1 + 40
    assert cost["cost_dollars"] == pytest.approx(26 * 0.001 + 55 * 0.0001)


def test_a_run_pays_for_loading_and_idling_too(config: FactoryConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("factory.line.board.time.monotonic", lambda: now[0])
    board = Board(BUILT_IN)
    for event, at in (("loading", 0), ("ready", 10), ("start", 20), ("end", 90), ("gone", 100)):
        now[0] = at
        board.record(
            "reconstruct", event, ["p"], 0, 70.0, actor="a", evaluations=(20, 40) if event == "end" else (0, 0)
        )
    stages = board.read().stages
    assert run_dollars(stages, pools_of(config), config.cost) == pytest.approx(100 * 0.001 + 200 * 0.0001)
    tally = Tally(total=1, done=1, read=board.read)
    tally.look()
    report = run_report("r1", tally, pools_of(config), config.cost, "f")
    stage = report["stages"]["reconstruct"]
    assert stage["by_state"] == {"loading": 10, "idle": 20, "busy": 70}
    assert (stage["gpu_seconds"], stage["busy_share"], stage["steps"]) == (100, pytest.approx(70 / 90), 20)
    assert report["total"]["dollars"] == pytest.approx(0.12)
    assert report["total"]["forwards"] == 40


def test_reports_are_saved_in_order_printed_and_shown(config: FactoryConfig, tmp_path: Path) -> None:
    from rich.console import Console

    store, board = LocalStore(str(tmp_path)), Board(BUILT_IN)
    board.record("image", "loading", actor="a")
    tally = Tally(total=2, done=1, failed=1, read=board.read)
    tally.look()
    assert newest_report(store) is None
    for run_id in ("1", "2"):
        report = run_report(run_id, tally, pools_of(config), config.cost, "f")
        save_report(store, report | {"finished": f"2026-01-0{run_id}T00:00:00+00:00"})
    newest = newest_report(store)
    assert newest is not None
    assert newest["run_id"] == "2"
    assert json.loads((tmp_path / "reports/2026-01-02T000000Z-2.json").read_text()) == newest
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report_table(newest))
    text = console.export_text()
    assert "1 of 2 rows done, 1 failed" in text
    assert all(stage in text for stage in BUILT_IN)
    page = report_section(newest)
    assert page.count("<tr>") == len(BUILT_IN) + 2
    assert report_section(None) == ""


def test_prices_change_no_fingerprint_and_are_checked() -> None:
    assert fingerprint(FactoryConfig()) == fingerprint(FactoryConfig(cost=CostConfig(gpu_hour_price=9.0)))
    with pytest.raises(ValueError, match=r"cost\.gpu_hour_price is -1\.0"):
        CostConfig(gpu_hour_price=-1.0)
