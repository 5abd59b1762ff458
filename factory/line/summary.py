"""Print a run's tables at its end, of seconds, evaluations and dead letters: `summary_table`, `dead_table`."""

from __future__ import annotations

from typing import Any

from factory.ledger.schemas import by_part
from factory.line.failure import place_of

LOG_WIDTH = 120
MAX_SUMMARY_ROWS = 20


def is_summed(column: str) -> bool:
    """Whether `summary_table` reads a column of the assets table."""
    return column in ("prompt_id", "prompt") or column.startswith(("seconds_", "steps_", "forwards_"))


def summary_table(rows: list[dict[str, Any]]) -> Any:
    """Seconds per stage and network evaluations of each asset, at most 20 of them, with the mean of all below.

    Args:
        rows: of the assets table, with the columns that `is_summed` names, at least one.
    """
    from rich.table import Table

    table = Table(title="Seconds per stage and network evaluations per asset", title_justify="left")
    table.add_column("asset", overflow="ellipsis", no_wrap=True, max_width=36)
    stages = by_part(dict.fromkeys(name for row in rows for name in row), "seconds")
    for name in (*stages, "total", "steps", "forwards"):
        table.add_column(name, justify="right")
    measured = [_measured(row, list(stages.values())) for row in rows]
    for row, values in list(zip(rows, measured))[:MAX_SUMMARY_ROWS]:
        table.add_row(_plain(row["prompt"] or row["prompt_id"]), *_cells(values))
    if len(rows) > MAX_SUMMARY_ROWS:
        table.add_row(f"and {len(rows) - MAX_SUMMARY_ROWS} more")
    table.add_section()
    table.add_row("mean", *_cells([sum(column) / len(rows) for column in zip(*measured)]))
    return table


def _measured(row: dict[str, Any], stages: list[str]) -> list[float]:
    """Seconds by stage, their sum, sampler steps, forwards."""
    seconds = [row.get(name) or 0.0 for name in stages]
    calls = [float(sum(row[name] or 0 for name in by_part(row, kind).values())) for kind in ("steps", "forwards")]
    return [*seconds, sum(seconds), *calls]


def _cells(values: list[float]) -> list[str]:
    return [f"{value:.1f}" for value in values[:-2]] + [f"{value:.0f}" for value in values[-2:]]


def dead_table(rows: list[dict[str, Any]]) -> Any:
    """The dead letters, at most 20 of them, by stage and reason."""
    from rich.table import Table

    table = Table(title=f"{len(rows)} dead letters", title_justify="left")
    for name in ("prompt_id", "stage", "error", "message", "place"):
        table.add_column(name, overflow="fold")
    for row in rows[:MAX_SUMMARY_ROWS]:
        cells = [row[name] or "unknown" for name in ("prompt_id", "error_stage", "error_type", "error_message")]
        table.add_row(*[_plain(cell[:200]) for cell in (*cells, place_of(row.get("error_trace")))])
    return table


def _plain(text: str) -> Any:
    """Text that can neither style the terminal nor send it control codes."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else " " for c in text))


def make_console() -> Any:
    """A console as wide as the terminal, or wide enough for the tables where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, LOG_WIDTH))
