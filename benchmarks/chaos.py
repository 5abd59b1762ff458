"""Kill actors, workers, raylets and drivers of the whole line, fail S3, and watch as a reader: `measure`.

Every prompt must end once, as an asset or as a dead letter; no asset may ever be seen in part; the Gaussians must be
those of a run that nobody disturbed. The models are the embedded ones at their cheapest settings; with --stand-in a
stage that only waits takes their place, so that many more processes can be killed in the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import slow_line
from benchmarks.faults import Faults, fault_proxy, read_counts
from benchmarks.s3_server import BUCKET, CREDENTIALS, s3_server
from benchmarks.storm import ROOT, Check, Reader, account, at_random, storm, whole
from factory.storage.store import StorageConfig, open_store

CHEAP: dict[str, Any] = {
    "image": {"size": 64, "steps": 1, "guidance_scale": 1},
    "video": {"steps": 1, "refine_steps": 1},
    "views": {"elevation": 0.3},
    "fit": {"iterations": 10, "num_points": 200},
    "refine": {"rounds_at": []},
    "files": {"turntable_frames": 16},
    "line": {"pools": {"all": {"row_timeout": 600, "actors": 1}}},
}
FAULTS = Faults(error_500=0.02, error_503=0.02, refuse=0.01, lose_answer=0.02, slow=0.01, truncate=0.01, seconds=1.0)
COLOURS = ("red", "blue", "green", "yellow", "white")
THINGS = ("car", "chair", "table", "barrel", "lamp", "house")


def main(argv: list[str] | None = None) -> int:
    """Print a JSON line; returns 0 when nothing was lost, doubled or half visible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--reference", type=int, default=8, help="prompts to make undisturbed too, to compare")
    parser.add_argument("--limit", type=int, help="so many prompts, and a fifth as many kills")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop the storm after so many")
    parser.add_argument("--stand-in", action="store_true", help="no models: benchmarks.slow_line")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    prompts = options.limit or options.prompts
    kills = max(1, options.limit // 5) if options.limit else options.kills
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), prompts, kills, options)
    print(json.dumps(figures))
    bad = ("missing", "duplicates", "partial_seen", "differing")
    return int(any(figures[name] for name in bad))


def measure(folder: Path, prompts: int, kills: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run the storm in a folder; returns its figures. Where its time was over, `missing` counts what was seen and is
    not there in the end."""
    command, check = _program(folder, prompts, options.stand_in)
    environment = os.environ | CREDENTIALS | {"OMP_NUM_THREADS": "1"}
    os.environ.update(CREDENTIALS)
    (folder / "s3").mkdir()
    with s3_server(folder / "s3") as server, fault_proxy(server, FAULTS, options.seed) as proxy:
        place = f"s3://{BUCKET}/chaos"
        store = open_store(place, StorageConfig(endpoint=server))
        reader = Reader(store, check)
        with reader.watching():
            broken = environment | {"AWS_ENDPOINT_URL": proxy}
            kinds, seconds = at_random(options.seed), 60 * options.minutes
            answer = storm(command(place), broken, reader, prompts, kills, kinds, seconds)
        reader.poll()
        counts = account(store, list(reader.seen) if answer["unfinished"] else [f"p{n}" for n in range(prompts)])
        made = {} if options.stand_in else _gaussians(reader)
        faults = sum(count for kind, count in read_counts(proxy).items() if kind != "passed")
    calm = folder / "calm"
    undisturbed = (
        _undisturbed([*command(str(calm)), "--limit", str(options.reference)], environment, calm) if made else {}
    )
    compared = [name for name in undisturbed if name in made]
    return {
        "prompts": prompts,
        **answer,
        "seconds": round(answer["seconds"]),
        **counts,
        "s3_faults": faults,
        "polls": reader.polls,
        "partial_seen": len(reader.partial),
        "compared": len(compared),
        "differing": sum(undisturbed[name] != made[name] for name in compared),
    }


def _program(folder: Path, prompts: int, stand_in: bool) -> tuple[Callable[[str], list[str]], Check]:
    """The command for an output folder, and whether an asset that it made is whole."""
    if stand_in:
        return lambda out: [sys.executable, "-m", "benchmarks.slow_line", out, str(prompts)], slow_line.whole
    rows = [{"prompt_id": f"p{n}", "prompt": f"a {COLOURS[n % 5]} {THINGS[n % 6]}", "seed": n} for n in range(prompts)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "cheap.yaml").write_text(json.dumps(CHEAP))
    command = [sys.executable, "-m", "jobs.generate", "--prompts", str(folder / "prompts.jsonl")]
    command += ["--config", str(folder / "cheap.yaml"), "--out"]
    return lambda out: [*command, out], whole


def _gaussians(reader: Reader) -> dict[str, str]:
    """SHA-256 of the Gaussians by prompt."""
    return {row["prompt_id"]: row["ply"]["sha256"] for row, kind in reader.rows() if kind == "asset"}


def _undisturbed(command: list[str], environment: dict[str, str], out: Path) -> dict[str, str]:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the undisturbed run failed: {done.stderr[-2000:]}")
    return _gaussians(Reader(open_store(str(out)), whole))


if __name__ == "__main__":
    sys.exit(main())
