"""Report an evaluation: `report` prints the scores, compares and keeps them; `write_table` those of the paper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.evaluation.judging import Assets, Judging
    from factory.line.output_folder import OutputFolder
    from factory.storage.interface import Store
    from jobs.evaluate import Evaluate

SHOWN = 20
"""Assets and prompts that are named; the others are counted."""
SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv", "html": "html"}


def report(
    job: Evaluate, statement: dict[str, Any], assets: Assets, folder: OutputFolder, judging: Judging,
    models: list[str],
) -> int:  # fmt: skip
    """Print scores, comparisons and tables, and keep them as `summary.json`; returns the job's exit code."""
    import numpy as np

    from eval.score_columns import rank_columns
    from eval.strict_json import as_json
    from eval.tables import own_rows
    from factory.evaluation.line import costs_of_run
    from factory.evaluation.paper_rows import rows_beside
    from factory.evaluation.score_tables import cut_prompts, letters, mean_columns, read_scores, summaries

    extra, ledger = judging.measures.columns(), folder.ledger
    scores = read_scores(ledger, mean_columns(models, extra) + rank_columns(models))
    failed = letters(ledger)
    dead = letters(assets.reader) if assets.reader else {"count": 0, "by_type": {}, "named": []}
    costs = costs_of_run(assets.reader) if assets.reader else {}
    summary = {"protocol": statement, "assets": len(scores), "without_scores": failed, "never_made": dead}
    summary |= {"scores": summaries(scores, models, extra), "costs": costs}
    if judging.models:
        from factory.evaluation.distances import distances_of

        summary["distances"] = distances_of(ledger, judging.models, judging.sets)
    summary["cut_prompts"] = cut_prompts(ledger, models)
    print(json.dumps(statement["views"]))
    _print_columns(summary["scores"], "")
    _print_distances(summary.get("distances", {}))
    _print_cut(summary["cut_prompts"])
    for what, bad in (("without scores", failed), ("never made", dead)):
        print(f"{bad['count']} {what}")
        print("".join(f"  {row['prompt_id']}: {row['error_message']}\n" for row in bad["named"][:SHOWN]), end="")
    if job.truth:
        summary["without_truth"] = len(scores) - int(np.isfinite(scores.values["psnr_renders"]).sum())
        print(f"{summary['without_truth']} scored assets without truth")
    if job.against:
        summary["against"] = _against(job, folder.store, scores, mean_columns(models, extra))
    for number in job.table:
        rows = own_rows(number, job.label, summary["scores"], models, costs)
        rows += rows_beside(job.beside, number, models, folder.store, job.storage)
        write_table(job, number, rows, folder.store)
    folder.store.put("summary.json", as_json(summary))
    print(f"{len(scores)} assets scored: {folder.store.root}/summary.json")
    return 0 if len(scores) and not failed["count"] and not dead["count"] else 1


def _print_columns(found: dict[str, dict[str, float]], what: str) -> None:
    for column, values in found.items():
        print(f"{column}{what}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def _print_distances(found: dict[str, dict[str, Any]]) -> None:
    for name, one in found.items():
        said = one["reason"] or f"{one['value']:.4g}, 95% {one['low']:.4g} to {one['high']:.4g}"
        print(f"{name}: {said}")


def _print_cut(found: dict[str, dict[str, Any]]) -> None:
    for model, cut in found.items():
        if cut["count"]:
            print(f"{cut['count']} prompts are longer than CLIP {model} reads: {', '.join(cut['named'][:SHOWN])}")


def _against(job: Evaluate, store: Store, scores: Any, names: list[str]) -> dict[str, Any]:
    """The paired comparison with another run; refuses another protocol with the difference."""
    from factory.evaluation.score_tables import comparisons, read_scores, same_protocol
    from factory.ledger.reader import SCORES, LedgerReader

    other = job.against or ""
    theirs = read_scores(LedgerReader(same_protocol(other, store, job.storage), SCORES), names)
    found = comparisons(scores, theirs, names)
    if not found:
        raise UserError(f"{other} shares fewer than 2 scored prompts with this run; compare runs of the same prompts")
    _print_columns(found, f" minus {other}")
    return {"run": other, "columns": found}


def write_table(job: Evaluate, number: int, rows: list[tuple[Any, ...]], store: Store) -> None:
    """Print the paper's table with our rows, and keep it."""
    from eval.tables import paper_table, write

    text = write(paper_table(number, rows), job.form)
    store.put(f"table-{number}.{SUFFIXES[job.form]}", text.encode())
    print(text)
