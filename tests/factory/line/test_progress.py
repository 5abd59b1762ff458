"""What a person and a log see of a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from rich.console import Console

from factory.line.board import Board
from factory.line.cost import CostConfig
from factory.line.events import EventLog
from factory.line.placement import Pool
from factory.line.progress import Display, headline, live_table, plain_line
from factory.line.tally import Tally
from factory.storage.local import LocalStore


def board_of_two() -> Board:
    board = Board(["image", "commit"])
    board.record("image", "loading", actor="a")
    return board


def test_waiting_is_named_from_ray_to_the_models_to_nothing() -> None:
    board = board_of_two()
    tally = Tally(total=4, waiting_for="Ray")
    tally.look()
    assert "waiting for Ray" in plain_line(tally)
    tally.waiting_for, tally.read = "", board.read
    tally.look()
    assert "waiting for the models of image" in plain_line(tally)
    board.record("image", "ready", actor="a")
    board.record("image", "start", ["p"], actor="a")
    tally.look()
    assert "waiting" not in plain_line(tally)


def test_lines_show_rows_by_state_queues_yield_and_cost() -> None:
    board = board_of_two()
    board.record("image", "end", ["a", "b", "c"], 1, 6.0, actor="a")
    tally = Tally(total=4, done=2, failed=1, read=board.read)
    tally.look()
    line = plain_line(tally, dollars=1.5)
    assert line.startswith("2 of 4 done, 1 failed, yield 67%, about ")
    assert "$1.50 so far" in line
    assert line.endswith("queued/in work/finished: image 1/0/3, commit 3/0/0")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_table(tally))
    row = next(line for line in console.export_text().splitlines() if " image " in line)
    assert [cell.strip() for cell in row.split("│")[1:7]] == ["image", "1", "0", "3", "1", "2.0"]


def test_time_left_follows_the_present_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("factory.line.progress.time.monotonic", lambda: now[0])
    tally = Tally(total=1000)
    assert tally.eta_seconds() is None
    for second in range(1, 1001):  # 500 seconds of loading, then a row every two
        now[0] = second
        tally.done = max(0, (second - 500) // 2)
        tally.look()
    assert tally.left == 750
    assert tally.eta_seconds() == pytest.approx(1500, rel=0.02)
    assert "about 25 min" in headline(tally)


def test_events_tell_start_failures_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, board = LocalStore(str(tmp_path)), board_of_two()
    pools = {"image": Pool(gpus=0.5), "commit": Pool()}
    display = Display(EventLog(store, "r1"), CostConfig(gpu_hour_price=3600.0), pools)
    tally = Tally(total=1)
    failure = {"event": "row_failed", "stage": "image", "prompt_id": "p", "error_type": "OSError"}
    with display.watching(tally):
        tally.read = board.read
        board.record("image", "end", ["p"], 1, actor="a", notes=[failure])
        tally.failed = 1
        time.sleep(0.05)
    text = (tmp_path / "events.jsonl").read_text()
    events = [__import__("json").loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events] == ["run_started", "row_failed", "run_finished"]
    assert (events[1]["prompt_id"], events[1]["run_id"], events[2]["failed"]) == ("p", "r1", 1)
    assert events[2]["dollars"] >= 0.02
    assert "0 of 1 done, 1 failed" in capsys.readouterr().out


def test_stopped_run_says_why(tmp_path: Path) -> None:
    display = Display(EventLog(LocalStore(str(tmp_path)), "r1"))
    with pytest.raises(RuntimeError), display.watching(Tally(total=1)):
        raise RuntimeError("no https://user:hunter22@host here")
    last = (tmp_path / "events.jsonl").read_text().splitlines()[-1]
    assert '"run_stopped"' in last
    assert "hunter22" not in last


def test_events_of_earlier_runs_stay_and_the_file_is_bounded(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for run in ("r1", "r2"):
        log = EventLog(store, run, limit=5)
        for n in range(3):
            log.add("x", n=n, long="y" * 10_000)
        log.flush(force=True)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [line.split('"run_id": "')[1][:2] for line in lines] == ["r1", "r1", "r2", "r2", "r2"]
    assert max(map(len, lines)) < 4200
