"""Remark on prompts, or write a published suite as a table: `im3d prompts --prompts FILE`.

Exit code: 0 without remarks, 1 with some, 2 when the prompts cannot be read.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.base import Job, start

MAX_SHOWN = 100


@dataclass(kw_only=True, slots=True)
class Prompts(Job):
    """Look over prompts before GPUs do: motion verbs, several objects, scenes, length, repeats, unusable rows."""

    prompts: str = ""
    """Table of prompts as `im3d generate` takes it."""
    suite: str = ""
    """A published suite instead: dreamfusion, t3bench-single, t3bench-surr, t3bench-multi or gpteval3d."""
    suite_path: str = ""
    """The suite's file, or the folder that has it; nothing is downloaded."""
    limit: int | None = None
    """Only the first rows."""
    out: str | None = None
    """Write the prompts without remarks here as JSON lines, a local path or s3:// address."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("prompts", Prompts, run, argv)


def run(job: Prompts) -> int:
    """Print the remarks; returns the exit code. Raises UserError for the user."""
    from eval.prompt_lint import RULES, lint
    from factory.prompts.suites import read_choice
    from factory.storage.store import open_store

    table = read_choice(job.prompts, job.suite, job.suite_path, job.limit, None, job.storage)
    for row in table.rejected[:MAX_SHOWN]:
        print(f"{row.prompt_id}: {row.error_type}: {row.error_message}")
    remarks = list(lint((row.prompt_id, row.prompt) for row in table.prompts))
    texts = {row.prompt_id: row.prompt for row in table.prompts}
    for remark in remarks[:MAX_SHOWN]:
        print(f"{remark.prompt_id}: {remark.rule} ({remark.words}): {texts[remark.prompt_id]}")
    if len(remarks) > MAX_SHOWN:
        print(f"... and {len(remarks) - MAX_SHOWN} more")
    marked = {remark.prompt_id for remark in remarks}
    for rule, count in Counter(remark.rule for remark in remarks).most_common():
        print(f"{count} x {rule}: {RULES[rule]}")
    print(f"{len(table.prompts)} prompts, {len(marked)} with remarks, {len(table.rejected)} rows unusable")
    if job.out:
        kept = [
            json.dumps({"prompt_id": row.prompt_id, "prompt": row.prompt, "seed": row.seed}, ensure_ascii=False) + "\n"
            for row in table.prompts
            if row.prompt_id not in marked
        ]
        folder, _, name = job.out.rpartition("/")
        open_store(folder or ".", job.storage).put(name, "".join(kept).encode())
        print(f"{len(kept)} prompts without remarks: {job.out}")
    return 1 if remarks or table.rejected else 0


if __name__ == "__main__":
    sys.exit(main())
