"""Measure the time to help, to each stage's actor and to the first image: `first_image_seconds`, `load_stage`.

    python -m benchmarks.startup [--only help stages image]

Prints the packages that cost each stage most (`python -X importtime`), a table, then one line of JSON:
``help_seconds``, ``load_seconds_<stage>`` (imports and weights of the pocket preset in a fresh process) and
``first_image_seconds`` (from the start of Ray to the first finished row of the stage "image").
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import tyro

Part = Literal["help", "stages", "image"]
REPEATS = 3
LOAD = """
import sys, time
start = time.perf_counter()
from factory.config.settings import preset
from factory.pipeline import steps
step = next(step for step in steps(preset("pocket"), {out!r}, "startup") if step.actor.name == {name!r})
step.actor(**step.arguments)
print(time.perf_counter() - start)
"""


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure how long starting takes."""

    only: tuple[Part, ...] = ("help", "stages", "image")
    """The parts to measure."""


def help_seconds() -> float:
    """The least wall time of `im3d generate --help` over a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "jobs.generate", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def load_stage(name: str, out: str) -> tuple[float, Counter[str]]:
    """Seconds that an actor of the stage takes to load in a fresh process, and seconds of imports by package."""
    code = LOAD.format(name=name, out=out)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1]), import_seconds(traced.stderr)


def import_seconds(trace: str) -> Counter[str]:
    """Seconds by top-level package of what `python -X importtime` writes, each module's own time."""
    spent: Any = Counter()
    for line in trace.splitlines():
        own, _, name = line.removeprefix("import time:").replace("|", " ").strip().partition(" ")
        if line.startswith("import time:") and own.isdigit():
            spent[name.split()[-1].partition(".")[0]] += int(own) / 1e6
    return spent


def first_image_seconds(out: str) -> float:
    """From the start of Ray to the first image, with the embedded models and every actor of the pocket preset."""
    from factory.config.settings import preset
    from factory.line.output_folder import open_output
    from factory.line.progress import Display
    from factory.line.run import run_line
    from factory.pipeline import steps
    from factory.prompts.row import Prompt
    from factory.prompts.work import PromptWork

    class Clock(Display):
        """Notes when the first image is finished."""

        seconds: float | None = None

        def _look(self, tally: Any) -> None:
            super()._look(tally)
            if self.seconds is None and tally.read and tally.last.stages["image"].finished:
                self.seconds = time.perf_counter() - start

    config = preset("pocket")
    config.fit.iterations, config.refine.rounds_at = 10, ()
    clock = Clock()
    work = PromptWork(prompts=[Prompt(prompt_id="chest", prompt="a brown chest", seed=0)], config=config)
    with open_output(out, config.storage) as folder:
        start = time.perf_counter()
        run_line(work, steps(config, out, "startup"), config.line, folder.ledger, clock)
    assert clock.seconds is not None, "the display looks at the line once more at its end"
    return clock.seconds


def main() -> None:
    """Run the benchmark and print its tables."""
    arguments = tyro.cli(Arguments)
    figures: dict[str, float] = {}
    if "help" in arguments.only:
        figures["help_seconds"] = help_seconds()
    with tempfile.TemporaryDirectory() as folder:
        if "stages" in arguments.only:
            for name in ("image", "video", "views", "reconstruct", "score", "commit"):
                figures[f"load_seconds_{name}"], spent = load_stage(name, folder)
                print(f"{name}: " + ", ".join(f"{package} {took:.2f} s" for package, took in spent.most_common(6)))
        if "image" in arguments.only:
            figures["first_image_seconds"] = first_image_seconds(f"{folder}/run")
    for name, value in figures.items():
        print(f"{name:28}{value:8.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
