"""Estimate a table from a sample of its prompts, as `im3d generate --dry-run N`: `dry_run`.

On this machine the sample is made in this process, without Ray; on a cluster by the line that the run will have.
Exit code: 0 with an estimate, 2 when there can be none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig
    from factory.ledger.ledger import Ledger
    from factory.line.estimate import Estimate, Range, Sample
    from factory.line.output_folder import OutputFolder
    from factory.line.placement import Pool
    from factory.line.tally import Tally
    from factory.prompts.prompt_table import PromptTable
    from factory.prompts.row import Prompt
    from factory.stages.survey import Need


def dry_run(settings: FactoryConfig, table: PromptTable, count: int, out: str | None) -> int:
    """Make `count` prompts of the table in another folder and print the estimate; returns the exit code.

    Args:
        settings: of the run; with `line.address` "local" the sample's runner is "inprocess".
        out: an empty folder that keeps the sample, local or s3://; None takes one that goes again.

    Raises:
        UserError: for too small a sample, or a folder that cannot be used.
    """
    from factory.line.estimate import choose
    from factory.line.output_folder import open_output
    from factory.line.summary import make_console
    from factory.stages.preflight import find_networks

    if settings.line.address == "local":
        settings = replace(settings, line=replace(settings.line, runner="inprocess"))
    names = choose([prompt.prompt_id for prompt in table.prompts], count)
    wanted = set(names)
    taken = {prompt.prompt_id: prompt for prompt in table.prompts if prompt.prompt_id in wanted}
    chosen = [taken[name] for name in names]
    needs = find_networks(settings)
    laid_out(settings)  # refuses pools that have no room, before anything is made
    with _folder(settings, out) as place, open_output(place, settings.storage) as folder:
        if len(folder.ledger.done) + len(folder.ledger.dead):
            raise UserError(f"{place} holds outcomes already; give an empty folder as --dry-run-out")
        print(f"Dry run of {len(chosen)} of {len(table.prompts)} prompts; the output folder is not touched")
        found = _estimate(settings, chosen, len(table.prompts), folder, needs)
    make_console().print(estimate_table(found))
    return 0


@contextmanager
def _folder(settings: FactoryConfig, out: str | None) -> Iterator[str]:
    """Where the sample goes: the given folder, or one that goes again."""
    if out:
        yield out
    elif settings.line.address != "local":
        raise UserError("the workers of a cluster do not see a temporary folder of this machine; give --dry-run-out")
    else:
        with tempfile.TemporaryDirectory(prefix="im3d-dry-run-") as folder:
            yield folder


def _estimate(
    settings: FactoryConfig, chosen: Sequence[Prompt], rows: int, folder: OutputFolder, needs: Sequence[Need]
) -> Estimate:
    """Run the line over the chosen prompts, and keep what it tells of `rows` of them in `estimate.json`."""
    from factory.ledger.ledger import DEAD
    from factory.line.estimate import estimate
    from factory.line.summary import dead_table, make_console
    from factory.stages.chain import pools_of
    from jobs.prompt_line import run_prompts

    tally = run_prompts(settings, chosen, folder, needs)
    if dead := list(folder.ledger.rows(DEAD)):
        make_console().print(dead_table(dead))
    assert tally is not None  # the folder was empty
    alone = settings.line.runner == "inprocess"
    actors = {stage: 1 if alone else pool.actors for stage, pool in pools_of(settings).items()}
    sample = _sample(folder.ledger, tally, len(chosen), actors)
    found = estimate(sample, rows, settings.cost, laid_out(settings, sample.seconds))
    folder.store.put("estimate.json", json.dumps(asdict(found), indent=1).encode())
    return found


def laid_out(settings: FactoryConfig, seconds: Mapping[str, Sequence[float]] | None = None) -> dict[str, Pool]:
    """The pools of a run on this machine or on the cluster as it is now, each as large as its stage is slow.

    Args:
        seconds: of rows by stage; what the stages expect where none are given.

    Raises:
        UserError: in one sentence, for pools that have no room.
    """
    from factory.line.layout import Pace, lay_out
    from factory.line.nodes import living_nodes, this_machine
    from factory.line.pace import LEAST_SECONDS
    from factory.stages.chain import pools_of, stages_of
    from factory.weights.folder import resolved

    given, chain, local = resolved(settings), stages_of(settings.chain), settings.line.address == "local"
    expected = {stage.name: stage.expected_seconds(given) for stage in chain}
    measured = {stage: max(sum(rows) / len(rows), LEAST_SECONDS) for stage, rows in (seconds or {}).items() if rows}
    return lay_out(
        pools_of(settings),
        [this_machine()] if local else living_nodes(),
        Pace(seconds=expected | measured),
        growing=[stage.name for stage in chain if stage.grows],
        local=local,
        autoscaling=settings.line.autoscaling,
    )[0]


def _sample(ledger: Ledger, tally: Tally, prompts: int, actors: Mapping[str, int]) -> Sample:
    """What the run over the sample left: rows, files and the board's counts; `actors` of each stage made it."""
    from factory.ledger.ledger import ASSETS
    from factory.ledger.schemas import by_part
    from factory.line.estimate import Sample

    rows = list(ledger.rows(ASSETS, lambda name: name == "ply" or name.startswith(("seconds_", "forwards_"))))
    counts = tally.last.stages
    seconds = {
        # the last stage's time is no column, since it ends after the row is written
        stage: [row.get(f"seconds_{stage}", count.seconds / max(count.finished, 1)) or 0.0 for row in rows]
        for stage, count in counts.items()
    }
    sizes = {row["ply"]["path"].rpartition("/")[0]: 0.0 for row in rows}
    for item in ledger.store.objects("files/"):
        folder = "/".join(item.key.split("/")[:2])
        if folder in sizes:
            sizes[folder] += item.size
    tables = sum(item.size for item in ledger.store.objects(f"{ASSETS}/")) / max(len(rows), 1)
    return Sample(
        prompts=prompts,
        seconds=seconds,
        loading=max(count.actor_seconds["loading"] / actors[stage] for stage, count in counts.items()),
        sizes=[size + tables for size in sizes.values()],
        forwards=[float(sum(row[name] or 0 for name in by_part(row, "forwards").values())) for row in rows],
    )


def estimate_table(found: Estimate) -> Any:
    """The estimate for a terminal."""
    from rich.table import Table

    from eval.page import money

    title = f"{found.prompts:,} prompts, from a sample of {found.sampled}; the run waits for {found.slowest}"
    table = Table(title=title, title_justify="left")
    for name in ("", "estimate", "95% interval"):
        table.add_column(name, justify="left" if not name else "right")

    def add(name: str, values: Range, form: Any) -> None:
        table.add_row(name, form(values.mid), f"{form(values.low)} to {form(values.high)}")

    add("prompts that make an asset", found.share, lambda value: f"{value:.1%}")
    add("time", found.seconds, _duration)
    table.add_row("actors", ", ".join(f"{stage} {count}" for stage, count in found.actors.items()))
    add("network evaluations", found.forwards, lambda value: f"{value:,.0f}")
    add("storage", found.size, _bytes)
    if found.dollars.mid:
        add("cost of the actors", found.dollars, money)
        add("of that in model code", found.model_dollars, money)
    if found.storage_dollars.mid:
        add("storage a month", found.storage_dollars, money)
    return table


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours >= 1 else f"{seconds / 60:.1f} min"


def _bytes(size: float) -> str:
    unit = next(power for power in (4, 3, 2, 1, 0) if size >= 1000**power or not power)
    return f"{size / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
