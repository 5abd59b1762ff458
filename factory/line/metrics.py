"""Export metrics to Prometheus by stage and status: `Metrics`. Ray adds its own tags and the prefix `ray_`.

A scrape of `infra/prometheus.yaml` finds the endpoints, `infra/grafana/line.json` draws them.
"""

from __future__ import annotations

from typing import Any

COUNTERS = {
    "factory_rows_total": "Rows that left a stage; status is done or failed.",
    "factory_model_seconds_total": "Seconds that actors spent in model code.",
    "factory_evaluation_steps_total": "Network evaluations as sampler steps.",
    "factory_evaluation_forwards_total": "Network evaluations as forward passes; guidance doubles them.",
    "factory_actor_starts_total": "Actors that began to load their models, restarts included.",
}
GAUGES = {
    "factory_queued_rows": "Rows that wait before a stage.",
    "factory_running_rows": "Rows in a stage now.",
    "factory_actors": "Actors of a stage now; status is loading, idle or busy.",
    "factory_busy_share": "Share of the time of loaded actors in which they had rows.",
    "factory_run_rows": "Rows of the run; status is done, failed or left.",
    "factory_run_eta_seconds": "Seconds to the end of the run at the present rate.",
    "factory_run_cost_dollars": "What the actors of the run cost so far, at the prices of --cost.",
}
HISTOGRAMS = {"factory_row_seconds": "Seconds of a row in a stage's model code."}
BOUNDARIES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
TAGS = {
    "factory_rows_total": ("stage", "status"),
    "factory_actors": ("stage", "status"),
    "factory_run_rows": ("status",),
    "factory_run_eta_seconds": (),
    "factory_run_cost_dollars": (),
}
"""Tags of a metric; only `stage` where nothing else is said. Ids are never tags: each value is a series for ever."""


class Metrics:
    """The metrics of one process that is part of a Ray session, made once in it."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        made: dict[str, Any] = {}
        for kind, names in ((Counter, COUNTERS), (Gauge, GAUGES)):
            for name, description in names.items():
                made[name] = kind(name, description=description, tag_keys=TAGS.get(name, ("stage",)))
        for name, description in HISTOGRAMS.items():
            made[name] = Histogram(name, description=description, boundaries=BOUNDARIES, tag_keys=("stage",))
        self._made = made

    def record(
        self, stage: str, event: str, rows: int, failed: int, seconds: float, evaluations: tuple[int, int]
    ) -> None:
        """Count one report of an actor (see `Board.record`)."""
        if event == "loading":
            self._add("factory_actor_starts_total", 1, stage=stage)
        if event != "end" or not rows:
            return
        self._add("factory_rows_total", rows - failed, stage=stage, status="done")
        self._add("factory_rows_total", failed, stage=stage, status="failed")
        self._add("factory_model_seconds_total", seconds, stage=stage)
        for name, count in zip(("factory_evaluation_steps_total", "factory_evaluation_forwards_total"), evaluations):
            self._add(name, count, stage=stage)
        for _ in range(rows):
            self._made["factory_row_seconds"].observe(max(seconds / rows, 1e-9), {"stage": stage})

    def set_gauges(self, snapshot: Any) -> None:
        """Show a `board.Snapshot`."""
        for stage, count in snapshot.stages.items():
            self._set("factory_running_rows", count.running, stage=stage)
            self._set("factory_busy_share", count.busy_share or 0.0, stage=stage)
            for status, number in count.actors.items():
                self._set("factory_actors", number, stage=stage, status=status)

    def set_run_gauges(self, tally: Any, dollars: float) -> None:
        """Show the run as a whole, a `tally.Tally`; the driver calls it."""
        for status, number in (("done", tally.done), ("failed", tally.failed), ("left", tally.left)):
            self._set("factory_run_rows", number, status=status)
        for stage, number in tally.last.queued(tally.total).items():
            self._set("factory_queued_rows", number, stage=stage)
        self._set("factory_run_eta_seconds", tally.eta_seconds() or 0.0)
        self._set("factory_run_cost_dollars", dollars)

    def _add(self, name: str, value: float, **tags: str) -> None:
        if value > 0:
            self._made[name].inc(value, tags)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._made[name].set(value, tags)
