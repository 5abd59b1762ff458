"""Count what every stage is doing in one small Ray actor, to which workers report without waiting: `Board`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.line.health import Deaths

MAX_STARTED = 10_000
MAX_NOTES = 1_000
STATES = ("loading", "idle", "busy")


@dataclass(kw_only=True, slots=True)
class StageCount:
    """One stage in this run: rows, network evaluations, and the time of its actors."""

    running: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0
    """In model code, over all rows."""
    steps: int = 0
    """Sampler steps, each of them one network evaluation."""
    forwards: int = 0
    """Forward passes; guidance doubles them."""
    restarts: int = 0
    actors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    """How many are in each state now."""
    actor_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0.0))
    """What they spent in each state, added up."""

    @property
    def busy_share(self) -> float | None:
        """Share of the time of loaded actors in which they had rows, in [0, 1]; None before there was any."""
        ready = self.actor_seconds["idle"] + self.actor_seconds["busy"]
        return self.actor_seconds["busy"] / ready if ready > 0 else None


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """The board at one moment: counts by stage in order, and what has happened since the last reading."""

    stages: dict[str, StageCount] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Events as for `events.EventLog`: {"event": "stage_ready" | "actor_restarted" | "row_failed", ...}."""

    def queued(self, total: int) -> dict[str, int]:
        """Rows that wait before each stage, of `total` rows that the first one gets."""
        waiting, before = {}, total
        for name, count in self.stages.items():
            waiting[name] = max(0, before - count.finished - count.running)
            before = count.finished
        return waiting


@dataclass(slots=True)
class _Place:
    """Where a row is, or was when last heard of: its state is "running", "left" or "died"."""

    stage: str
    state: str
    host: str | None = None
    node: str = ""
    deaths: int = 0
    timed_out: bool = False


@dataclass(slots=True)
class _Actor:
    stage: str
    state: str
    since: float


@dataclass(slots=True)
class _ActorNode:
    """Where an actor came up last."""

    stage: str
    node: str


class Board:
    """Counts rows and actors by stage.

    Args:
        stages: their names, in order.
        metrics: gets every report too (`metrics.Metrics`), or None. A function, since it is made in the actor.
        is_gone: tells by its id whether a node has left the cluster, or is about to.
    """

    def __init__(
        self,
        stages: Iterable[str],
        metrics: Callable[[], Any] | None = None,
        is_gone: Callable[[str], bool] = lambda node: False,
    ) -> None:
        self.stages = {name: StageCount() for name in stages}
        self.metrics, self.is_gone = metrics() if metrics else None, is_gone
        self._started: dict[str, _Place] = {}
        self._actors: dict[str, _Actor] = {}
        self._actor_nodes: dict[str, _ActorNode] = {}
        self._last_report = time.monotonic()
        self._notes: deque[dict[str, Any]] = deque(maxlen=MAX_NOTES)

    def record(
        self,
        stage: str,
        event: str,
        prompt_ids: Sequence[str] = (),
        failed: int = 0,
        seconds: float = 0.0,
        actor: str = "",
        evaluations: tuple[int, int] = (0, 0),
        notes: Sequence[dict[str, Any]] = (),
        host: str | None = None,
        node: str = "",
    ) -> None:
        """Count what an actor reports.

        Args:
            stage: its stage.
            event: "loading", "ready" or "gone" of the actor; "start", "end" or "timeout" of rows in it; or "note".
            prompt_ids: of these rows.
            failed: how many of them are dead letters now.
            seconds: in model code, or loading.
            actor: the same after a restart of its process.
            evaluations: sampler steps and forwards.
            notes: see `Snapshot.notes`.
            host: of the actor, where rows start. node: its node's id, where it loads or rows start.
        """
        count = self.stages[stage]
        self._last_report = time.monotonic()
        if actor and node:
            self._actor_nodes[actor] = _ActorNode(stage, node)
        self._notes.extend(notes)
        if event == "loading" and actor in self._actors:
            count.restarts += 1
            self._notes.append({"event": "actor_restarted", "stage": stage})
        if event == "start":
            self._start(stage, prompt_ids, host, node)
        elif event == "timeout":
            for place in filter(None, map(self._started.get, prompt_ids)):
                place.timed_out = True
        elif event == "end":
            count.finished += len(prompt_ids)
            count.failed += failed
            count.seconds += seconds
            count.steps += evaluations[0]
            count.forwards += evaluations[1]
            for place in filter(None, map(self._started.get, prompt_ids)):
                place.state = "left"
        if actor and event not in ("timeout", "note"):
            self._move(actor, stage, {"loading": "loading", "start": "busy", "gone": ""}.get(event, "idle"))
        if self.metrics:
            self.metrics.record(stage, event, len(prompt_ids), failed, seconds, evaluations)

    def deaths(self, stage: str, prompt_ids: Sequence[str]) -> list[Deaths]:
        """How often a process of this stage died with each row. Rows that an actor asks for run nowhere else.

        The end of a node is no fault of the rows that it had.
        """
        found = []
        for prompt_id in prompt_ids:
            place = self._started.get(prompt_id)
            if place is None or place.stage != stage:
                found.append(Deaths())
                continue
            if place.state == "running":
                place.state = "died"
                place.deaths += not (place.node and self.is_gone(place.node))
            found.append(Deaths(count=place.deaths, timed_out=place.timed_out, host=place.host))
        return found

    def renew(self) -> None:
        """Forget the actors, as those of a pass that has ended."""
        for actor in list(self._actors):
            self._move(actor, self._actors[actor].stage, "")
        self._actor_nodes.clear()

    def stranded(self, patience: float = 15.0) -> dict[str, bool]:
        """Actors on nodes that are drained or gone, once the line waits for nothing but their rows.

        That is when all other actors are idle, and none of the line has been heard of for `patience` seconds. Each is
        named once, with whether its stage has others that can go on without it.
        """
        if time.monotonic() - self._last_report < patience:
            return {}
        lost = {name: home.stage for name, home in self._actor_nodes.items() if self.is_gone(home.node)}
        living = self._actors.keys() & (self._actor_nodes.keys() - lost.keys())
        if any(self._actors[name].state != "idle" for name in living):
            return {}
        staffed = {self._actor_nodes[name].stage for name in living}
        for name in lost:
            del self._actor_nodes[name]
        return {name: stage in staffed for name, stage in lost.items()}

    def read(self) -> Snapshot:
        """The counts now, and the notes since the last reading."""
        now = time.monotonic()
        for name, count in self.stages.items():
            count.running = sum(p.stage == name and p.state == "running" for p in self._started.values())
            count.actors = dict.fromkeys(STATES, 0)
        for known in self._actors.values():
            self._add_actor_seconds(known, now)
            self.stages[known.stage].actors[known.state] += 1
        notes, self._notes = list(self._notes), deque(maxlen=MAX_NOTES)
        snapshot = Snapshot(stages=self.stages, notes=notes)
        if self.metrics:
            self.metrics.set_gauges(snapshot)
        return snapshot

    def last_place(self, prompt_id: str) -> tuple[str | None, str | None]:
        """The stage and host that a prompt was in when last heard of."""
        place = self._started.get(prompt_id)
        return (place.stage, place.host) if place else (None, None)

    def _start(self, stage: str, prompt_ids: Sequence[str], host: str | None, node: str) -> None:
        for prompt_id in prompt_ids:
            before = self._started.pop(prompt_id, None)
            same = before is not None and before.stage == stage
            self._started[prompt_id] = _Place(stage, "running", host, node, before.deaths if same and before else 0)
        while len(self._started) > MAX_STARTED:
            del self._started[next(iter(self._started))]

    def _move(self, actor: str, stage: str, state: str) -> None:
        now = time.monotonic()
        if actor in self._actors:
            self._add_actor_seconds(self._actors[actor], now)
        if state:
            self._actors[actor] = _Actor(stage, state, now)
        else:
            self._actors.pop(actor, None)

    def _add_actor_seconds(self, known: _Actor, now: float) -> None:
        self.stages[known.stage].actor_seconds[known.state] += now - known.since
        known.since = now
