"""Report what a run did and cost, in `reports/<time>-<run_id>.json` and as tables: `run_report`, `save_report`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from factory.line.cost import CostConfig, Usage, usage
from factory.line.placement import Pool
from factory.storage.interface import ReadableStore, Store

if TYPE_CHECKING:
    from factory.line.board import StageCount
    from factory.line.tally import Tally

FOLDER = "reports"


def run_report(
    run_id: str, tally: Tally, pools: Mapping[str, Pool], prices: CostConfig, fingerprint: str
) -> dict[str, Any]:
    """The figures of a run as JSON values; seconds and dollars are of its actors from start to end.

    Args:
        pools: of each stage. fingerprint: of the settings.
    """
    stages = {name: _stage(count, pools[name], prices) for name, count in tally.last.stages.items()}
    summed = ("actor_seconds", "cpu_seconds", "gpu_seconds", "dollars", "steps", "forwards")
    return {
        "run_id": run_id,
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "config_fingerprint": fingerprint,
        "seconds": round(tally.seconds, 3),
        "rows": {"total": tally.total, "done": tally.done, "failed": tally.failed, "left": tally.left},
        "prices": asdict(prices),
        "stages": stages,
        "total": {name: sum(stage[name] for stage in stages.values()) for name in summed},
    }


def _stage(count: StageCount, pool: Pool, prices: CostConfig) -> dict[str, Any]:
    held: Usage = usage(sum(count.actor_seconds.values()), pool)
    return {
        "finished": count.finished,
        "failed": count.failed,
        "restarts": count.restarts,
        "model_seconds": count.seconds,
        "busy_share": count.busy_share,
        "by_state": count.actor_seconds,
        "dollars": held.dollars(prices),
        "steps": count.steps,
        "forwards": count.forwards,
    } | asdict(held)


def save_report(store: Store, report: dict[str, Any]) -> None:
    """Write a report beside those of earlier runs."""
    stamp = report["finished"].replace(":", "").replace("+0000", "Z")
    store.put(f"{FOLDER}/{stamp}-{report['run_id']}.json", json.dumps(report, indent=1).encode())


def newest_report(store: ReadableStore) -> dict[str, Any] | None:
    """The report of the last run into a folder, or None."""
    names = [name for name in store.keys(f"{FOLDER}/") if name.endswith(".json")]
    return json.loads(store.get(names[-1])) if names else None


_HEAD = (
    "stage",
    "finished",
    "failed",
    "restarts",
    "s a row",
    "busy",
    "loading",
    "actor s",
    "GPU s",
    "steps",
    "forwards",
)


def _cells(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table, the sum last; dollars only where there are prices."""
    priced = bool(report["prices"]["gpu_hour_price"] or report["prices"]["cpu_hour_price"])
    rows = []
    for name, stage in report["stages"].items():
        mean = f"{stage['model_seconds'] / stage['finished']:.2f}" if stage["finished"] else "-"
        busy = f"{stage['busy_share']:.0%}" if stage["busy_share"] is not None else "-"
        counts = [str(stage[what]) for what in ("finished", "failed", "restarts")]
        rows.append([name, *counts, mean, busy, f"{stage['by_state']['loading']:.1f} s", *_held(stage, priced)])
    rows.append(["all", "", "", "", "", "", "", *_held(report["total"], priced)])
    return [*_HEAD, *(["$"] if priced else [])], rows


def _held(stage: dict[str, Any], priced: bool) -> list[str]:
    cells = [
        f"{stage['actor_seconds']:.1f}",
        f"{stage['gpu_seconds']:.1f}",
        str(stage["steps"]),
        str(stage["forwards"]),
    ]
    return cells + ([f"{stage['dollars']:.4f}"] if priced else [])


def report_table(report: dict[str, Any]) -> Any:
    """The report for a terminal."""
    from rich.table import Table

    head, rows = _cells(report)
    table = Table(title=f"Run {report['run_id']}: {_sentence(report)}", title_justify="left")
    for column in head:
        table.add_column(column, justify="left" if column == "stage" else "right")
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1])
    return table


def report_section(report: dict[str, Any] | None) -> str:
    """The report as HTML; empty for None."""
    if report is None:
        return ""
    head, rows = _cells(report)
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f"<h2>Last run</h2>\n<p class='sub'>{escape(_sentence(report))}</p>\n<table><tr>{header}</tr>\n{body}</table>\n"
    )


def _sentence(report: dict[str, Any]) -> str:
    rows, total = report["rows"], report["total"]
    words = [f"{rows['done']} of {rows['total']} rows done, {rows['failed']} failed, in {report['seconds']:.0f} s"]
    if rows["done"] and total["dollars"]:
        words.append(f"${total['dollars']:.4f}, ${total['dollars'] / rows['done']:.4f} an asset")
    return "; ".join(words)
