"""Counting rows and actors."""

from __future__ import annotations

import pytest

from factory.line import board as board_module
from factory.line.board import Board
from factory.line.health import Deaths


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The board's time, to be set."""
    now = [100.0]
    monkeypatch.setattr(board_module.time, "monotonic", lambda: now[0])
    return now


def test_actors_time_is_split_by_what_they_did(clock: list[float]) -> None:
    board = Board(["image", "video"])
    board.record("image", "loading", actor="a")
    clock[0] += 4
    board.record("image", "ready", actor="a", seconds=4)
    clock[0] += 1
    board.record("image", "start", ["p"], actor="a")
    clock[0] += 9
    count = board.read().stages["image"]
    assert (count.actors, count.running) == ({"loading": 0, "idle": 0, "busy": 1}, 1)
    assert count.actor_seconds == {"loading": 4, "idle": 1, "busy": 9}
    assert count.busy_share == pytest.approx(0.9)
    board.record("image", "end", ["p"], 0, 9.0, actor="a", evaluations=(20, 40))
    board.record("image", "gone", actor="a")
    clock[0] += 50
    count = board.read().stages["image"]
    assert (count.running, count.finished, count.steps, count.forwards) == (0, 1, 20, 40)
    assert count.actor_seconds == {"loading": 4, "idle": 1, "busy": 9}
    assert count.actors == {"loading": 0, "idle": 0, "busy": 0}


def test_queues_are_what_one_stage_finished_and_the_next_has_not_begun() -> None:
    board = Board(["image", "video", "commit"])
    board.record("image", "end", ["a", "b", "c"], actor="x")
    board.record("image", "start", ["d"], actor="x")
    board.record("video", "end", ["a"], actor="y")
    board.record("video", "start", ["b"], actor="y")
    assert board.read().queued(10) == {"image": 6, "video": 1, "commit": 1}


def test_restarted_actor_is_noted_and_counted_once() -> None:
    board = Board(["image"])
    board.record("image", "loading", actor="a")
    board.record("image", "ready", actor="a")
    board.record("image", "start", ["p"], actor="a")
    board.record("image", "loading", actor="a")
    snapshot = board.read()
    assert snapshot.stages["image"].restarts == 1
    assert snapshot.stages["image"].actors == {"loading": 1, "idle": 0, "busy": 0}
    assert {"event": "actor_restarted", "stage": "image"} in snapshot.notes
    assert board.last_place("p") == ("image", None)


def test_notes_are_read_once_and_bounded() -> None:
    board = Board(["image"])
    for n in range(board_module.MAX_NOTES + 10):
        board.record("image", "end", [str(n)], 1, notes=[{"event": "row_failed", "prompt_id": str(n)}])
    notes = board.read().notes
    assert (len(notes), notes[-1]["prompt_id"]) == (board_module.MAX_NOTES, str(board_module.MAX_NOTES + 9))
    assert board.read().notes == []


def test_memory_of_rows_is_bounded() -> None:
    board = Board(["image"])
    for n in range(board_module.MAX_STARTED + 5):
        board.record("image", "start", [str(n)])
    assert board.last_place("0") == (None, None)
    assert board.last_place(str(board_module.MAX_STARTED + 4))[0] == "image"
    assert board.read().stages["image"].running == board_module.MAX_STARTED


def test_a_new_pass_has_new_actors() -> None:
    board = Board(["image"])
    board.record("image", "loading", actor="a")
    board.renew()
    board.record("image", "loading", actor="b")
    assert board.read().stages["image"].actors["loading"] == 1


def test_rows_that_ran_when_asked_for_again_have_killed_a_process() -> None:
    board = Board(["image", "video"])
    assert board.deaths("image", ["a", "b"]) == [Deaths(), Deaths()]
    board.record("image", "start", ["a", "b"], actor="x", host="h1")
    board.record("image", "end", ["b"], actor="x")
    assert board.deaths("image", ["a", "b"]) == [Deaths(count=1, host="h1"), Deaths(host="h1")]
    assert board.deaths("image", ["a"])[0].count == 1
    board.record("image", "start", ["a"], actor="y", host="h2")
    board.record("image", "timeout", ["a"], actor="y")
    assert board.deaths("image", ["a"]) == [Deaths(count=2, timed_out=True, host="h2")]
    assert board.deaths("video", ["a"]) == [Deaths()]
    board.record("image", "start", ["a"], actor="y", host="h2")
    board.record("image", "end", ["a"], actor="y")
    board.record("video", "start", ["a"], actor="z", host="h2")
    assert board.deaths("video", ["a"])[0].count == 1


def test_the_end_of_a_node_is_no_death_of_its_rows() -> None:
    board = Board(["image"], is_gone=lambda node: node == "spot")
    for node, count in (("spot", 0), ("firm", 1), ("spot", 1)):
        board.record("image", "start", ["p"], actor="a", host="h", node=node)
        assert board.deaths("image", ["p"]) == [Deaths(count=count, host="h")]


def test_actors_of_lost_nodes_are_named_once_nothing_else_is_left():
    gone: set[str] = set()
    board = Board(["image"], is_gone=gone.__contains__)
    for actor, node in (("a", "one"), ("b", "two")):
        board.record("image", "loading", actor=actor, node=node)
        board.record("image", "ready", actor=actor)
    assert board.stranded(patience=0) == {}, "both nodes are there"
    gone.add("two")
    assert board.stranded(patience=60) == {}, "it may come up elsewhere"
    board.record("image", "start", ["p"], actor="a", node="one")
    assert board.stranded(patience=0) == {}, "the line has other work"
    board.record("image", "end", ["p"], actor="a")
    board.record("image", "gone", actor="b")
    assert board.stranded(patience=0) == {"b": True}
    assert board.stranded(patience=0) == {}
    gone.add("one")
    assert board.stranded(patience=0) == {"a": False}, "the stage has no other"
