"""Measure what the line costs: `videos`, `small_rows`, `resume`, and `steady`, the share of time in model code.

The small rows are also run through plain `map_batches` and through a loop, which keep no ledger, count no progress
and find no killers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import null_stages as null

MILLION = 1_000_000
ROOT = Path(__file__).resolve().parents[1]
PARTS = ("videos", "small", "resume", "shards", "steady")
SHARDS = 1000


def main(argv: list[str] | None = None) -> None:
    """Print a line for each part and a JSON line with all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=60, help="rows that carry videos")
    parser.add_argument("--small", type=int, default=MILLION, help="small rows from end to end")
    parser.add_argument("--resume", type=int, default=MILLION, help="committed rows to resume over")
    parser.add_argument("--shards", type=int, default=10 * MILLION, help="prompts in 1,000 files to start on")
    parser.add_argument("--steady", type=int, default=8, help="prompts for the embedded models")
    parser.add_argument("--limit", type=int, help="so many videos and prompts, and 1000 times as many other rows")
    parser.add_argument("--only", choices=PARTS, action="append", help="parts to run; all by default")
    options = parser.parse_args(argv)
    counts = {name: options.limit * 1000 if options.limit else getattr(options, name) for name in PARTS}
    counts |= {name: options.limit or getattr(options, name) for name in ("videos", "steady")}
    parts = {"videos": videos, "small": small_rows, "resume": resume, "shards": shards, "steady": steady}
    figures: dict[str, Any] = {}
    for name in options.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            found = parts[name](counts[name], Path(folder))
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in found.items())}", flush=True)
        figures |= found
    print(json.dumps(figures))


def videos(count: int, folder: Path) -> dict[str, Any]:
    """Rows with videos through the whole chain."""
    from factory.config.settings import FactoryConfig
    from factory.line.events import EventLog
    from factory.line.placement import Pool
    from factory.line.progress import Display
    from factory.line.settings import LineConfig
    from factory.line.step import Step
    from factory.storage.store import open_store

    config = FactoryConfig(line=LineConfig(rows_per_block=1))
    kinds = (null.NullImage, null.NullVideo, null.NullViews, null.NullReconstruct, null.NullScore, null.NullCommit)
    chain = [Step(actor=kind, pool=Pool(), arguments={"config": config}) for kind in kinds]
    chain[-1].arguments = {"config": config, "out": str(folder), "run_id": "r"}
    events = EventLog(open_store(str(folder / "events")), "r", limit=100 * count)
    with _watched() as seen:
        tally, seconds = _run(count, chain, config, folder, display=Display(events=events))
    stages = list(tally.last.stages.values())[:-1]
    answer = [json.loads(line) for line in events.store.get("events.jsonl").splitlines()]
    outside, cpu, worked = (
        sum(event[what] for event in answer if event["event"] == null.CALLED) for what in ("seconds", "cpu", "worked")
    )
    row_bytes = null.VIEWS * null.SIZE**2 * 8 + null.SIZE**2 * 3 + null.PLY_BYTES
    return {
        "video_rows": count,
        "video_rows_per_s": round(count / seconds, 3),
        "video_mb_per_s": round(count * row_bytes / seconds / 1e6, 1),
        "video_outside_share": round(outside / (outside + worked), 4),
        "video_outside_ms_per_row_and_stage": round(1000 * outside / count / len(stages), 1),
        "video_cpu_ms_per_row_and_stage": round(1000 * cpu / count / len(stages), 1),
        "video_store_peak_mb": seen["store"],
        "video_spilled_mb": seen["spilled"],
        "video_driver_rss_gb": seen["rss"],
    }


def small_rows(count: int, folder: Path) -> dict[str, Any]:
    """Small rows through the line, through plain map_batches, and through a loop."""
    from factory.config.settings import FactoryConfig
    from factory.line.placement import Pool
    from factory.line.settings import LineConfig
    from factory.line.step import Step

    config = FactoryConfig(line=LineConfig(rows_per_block=2000))
    arguments: dict[str, Any] = {"config": config}
    chain = [
        Step(actor=null.SmallImage, pool=Pool(batch=2000), arguments=arguments),
        Step(actor=null.SmallCommit, pool=Pool(batch=2000), arguments=arguments | {"out": str(folder), "run_id": "r"}),
    ]
    with _watched() as seen:
        tally, seconds = _run(count, chain, config, folder, rows_per_part=20_000)
    rows = sum(pq.read_metadata(path).num_rows for path in (folder / "assets").iterdir())
    if not rows == tally.done == count:
        raise RuntimeError(f"{count} rows in, {tally.done} done, {rows} published")
    plain, loop = _plain(count, folder / "plain"), _loop(count, folder / "loop.parquet")
    return {
        "small_rows": count,
        "small_rows_per_s": round(count / seconds, 1),
        "small_driver_rss_gb": seen["rss"],
        "plain_map_batches_rows_per_s": round(count / plain, 1),
        "python_loop_rows_per_s": round(count / loop, 1),
        "small_ms_per_row": round(1000 * seconds / count, 4),
        "plain_map_batches_ms_per_row": round(1000 * plain / count, 4),
        "python_loop_ms_per_row": round(1000 * loop / count, 4),
    }


def _run(
    count: int, chain: Any, config: Any, folder: Path, rows_per_part: int = 256, display: Any = None
) -> tuple[Any, float]:
    """The line over so many prompts; the tally, and seconds without the start of Ray."""
    from factory.ledger.ledger import Ledger
    from factory.line.progress import Display
    from factory.line.ray_session import start_ray
    from factory.line.run import run_line
    from factory.prompts.row import Prompt
    from factory.prompts.work import PromptWork
    from factory.storage.store import open_store

    start_ray("local")
    prompts = [Prompt(prompt_id=f"p{n}", prompt=f"a cup {n}", seed=n) for n in range(count)]
    ledger = Ledger(open_store(str(folder)), rows_per_part=rows_per_part)
    started = time.monotonic()
    tally = run_line(PromptWork(prompts=prompts, config=config), chain, config.line, ledger, display or Display())
    return tally, time.monotonic() - started


class _PlainImage:
    def __call__(self, table: pa.Table) -> pa.Table:
        return table.append_column("size", pa.array([len(null.small(p)) for p in table["prompt"].to_pylist()]))


def _plain(count: int, folder: Path) -> float:
    """Seconds of the same rows through Ray Data alone: one actor stage, then parquet."""
    import ray.data
    from ray.data import ActorPoolStrategy

    names = [f"a cup {n}" for n in range(count)]
    started = time.monotonic()
    table = pa.table({"prompt_id": [f"p{n}" for n in range(count)], "prompt": names})
    blocks = [table.slice(start, 2000) for start in range(0, count, 2000)]
    dataset = ray.data.from_arrow(blocks).map_batches(
        _PlainImage, compute=ActorPoolStrategy(size=1), batch_size=2000, batch_format="pyarrow", num_cpus=0.25
    )
    dataset.write_parquet(str(folder))
    return time.monotonic() - started


def _loop(count: int, file: Path) -> float:
    started = time.monotonic()
    prompts = [f"a cup {n}" for n in range(count)]
    sizes = [len(null.small(prompt)) for prompt in prompts]
    pq.write_table(
        pa.table({"prompt_id": [f"p{n}" for n in range(count)], "prompt": prompts, "size": sizes}), str(file)
    )
    return time.monotonic() - started


def resume(count: int, folder: Path) -> dict[str, Any]:
    """`im3d generate` over a table whose every row is committed: the whole command, from start to exit."""
    from factory.ledger.ledger import ASSETS, ROWS_PER_PART

    ids = [f"p{n}" for n in range(count)]
    pq.write_table(pa.table({"prompt_id": ids, "prompt": [f"a cup {n}" for n in range(count)]}), folder / "p.parquet")
    committed(folder / "out", ids)
    listed = len(list((folder / "out" / ASSETS).iterdir()))
    command = [sys.executable, "-m", "jobs.generate", "--prompts", str(folder / "p.parquet"), "--out"]
    started = time.monotonic()
    answer = subprocess.run([*command, str(folder / "out")], cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if answer.returncode or f"Nothing to do: all {count} prompts" not in answer.stdout:
        raise RuntimeError(f"the resume failed: {answer.stdout[-500:]}{answer.stderr[-2000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    rss = used.ru_maxrss / 2**20
    return {
        "resume_rows": count,
        "resume_parts": listed,
        "resume_rows_per_part": ROWS_PER_PART,
        "resume_1m_seconds" if count == MILLION else "resume_seconds": round(seconds, 1),
        "resume_cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "resume_1m_rss_gb" if count == MILLION else "resume_rss_gb": round(rss, 2),
    }


def shards(count: int, folder: Path) -> dict[str, Any]:
    """Prompts in many files: from the first look at the folder until one of them is done, and memory till then."""
    for number in range(SHARDS):
        rows = range(number * count // SHARDS, (number + 1) * count // SHARDS)
        columns = {"prompt_id": [f"p{n}" for n in rows], "prompt": [f"a small red cup number {n}" for n in rows]}
        pq.write_table(pa.table(columns), folder / f"part-{number:05d}.parquet")
    command = [sys.executable, "-c", "from benchmarks.line import start_on_shards; start_on_shards()"]
    answer = subprocess.run([*command, str(folder)], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"the start failed: {answer.stdout[-500:]}{answer.stderr[-2000:]}")
    return {"shards_rows": count, "shards_files": SHARDS} | json.loads(answer.stdout.splitlines()[-1])


def start_on_shards() -> None:
    """In a process of its own: read the shards, start a line of stages that do nothing, stop at the first outcome."""
    from factory.config.settings import FactoryConfig
    from factory.ledger.ledger import Ledger
    from factory.line.run import run_line
    from factory.line.settings import LineConfig, Pool
    from factory.line.step import Step
    from factory.prompts.prompt_table import read_prompts
    from factory.prompts.work import PromptWork
    from factory.storage.store import open_store

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start it with the signal ignored
    folder, figures = Path(sys.argv[1]), dict[str, float]()
    config, out = FactoryConfig(line=LineConfig(rows_per_block=200)), folder.with_name(f"{folder.name}-out")
    arguments: dict[str, Any] = {"config": config}
    chain = [
        Step(actor=null.SmallImage, pool=Pool(batch=200), arguments=arguments),
        Step(actor=null.SmallCommit, pool=Pool(batch=200), arguments=arguments | {"out": str(out), "run_id": "r"}),
    ]
    started = time.monotonic()

    def look() -> None:
        while not any(out.glob("commits/*")):
            time.sleep(0.05)
        figures["shards_first_outcome_seconds"] = round(time.monotonic() - started, 1)
        os.kill(os.getpid(), signal.SIGINT)  # wakes the main thread from whatever it waits for

    threading.Thread(target=look, daemon=True).start()
    with suppress(KeyboardInterrupt), _watched() as seen:
        prompts = read_prompts(str(folder)).prompts
        figures["shards_read_seconds"] = round(time.monotonic() - started, 1)
        figures["shards_read_cpu_seconds"] = round(time.process_time(), 1)
        run_line(PromptWork(prompts=prompts, config=config), chain, config.line, Ledger(open_store(str(out))))
    shutil.rmtree(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(figures | {"shards_driver_rss_gb": round(max(peak, seen["rss"]), 2)}))


def steady(count: int, folder: Path) -> dict[str, Any]:
    """The whole line with the embedded models: time of the reconstructing actors while there was work for all."""
    from factory.config.settings import preset
    from factory.ledger.ledger import ASSETS, Ledger
    from factory.ledger.schemas import by_part
    from factory.line.progress import Display
    from factory.pipeline import steps
    from factory.stages.reconstruct import Reconstruct
    from factory.storage.store import open_store

    samples: list[tuple[int, dict[str, float]]] = []

    class Sampling(Display):
        def _look(self, tally: Any) -> None:
            super()._look(tally)
            if slowest := tally.last.stages.get("reconstruct"):
                samples.append((slowest.running, slowest.actor_seconds))

    config = preset("pocket")
    tally, seconds = _run(count, steps(config, str(folder), "r"), config, folder, display=Sampling())
    rows = list(Ledger(open_store(str(folder))).rows(ASSETS))
    worked = {stage: sum(row[name] for row in rows) for stage, name in by_part(rows[0], "seconds").items()}
    inside = {stage: worked[stage] / tally.last.stages[stage].actor_seconds["busy"] for stage in worked}
    full = [spent for running, spent in samples if running == Reconstruct.pool.actors]
    busy, idle = (full[-1][state] - full[0][state] for state in ("busy", "idle"))
    return {
        "steady_prompts": len(rows),
        "steady_seconds": round(seconds, 1),
        "steady_window_actor_seconds": round(busy + idle, 1),
        "steady_busy_share": round(busy / (busy + idle), 4),
        "steady_model_share": round(inside["reconstruct"] * busy / (busy + idle), 4),
        "steady_model_share_of_busy": {stage: round(share, 4) for stage, share in inside.items()},
    }


def committed(out: Path, ids: list[str]) -> None:
    """An output folder with these assets, as the ledger publishes them; their pictures are left out."""
    from factory.ledger.commit_protocol import commit_block
    from factory.ledger.ledger import ASSETS, ROWS_PER_PART, Ledger
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns
    from factory.storage.store import open_store

    schema = assets_schema(written_columns())
    entry = {"path": "files/x-1/asset.ply", "sha256": "", "size": 1}
    row = dict.fromkeys(schema.names) | {"prompt_id": "", "prompt": "a cup", "seed": 1, "ply": entry}
    row |= {"image": {"bytes": b"", "path": "files/x-1/image.png"}, "from_image": False, "elevation": 0.3}
    row |= {"num_gaussians": 5000, "seconds_image": 1.0, "config_fingerprint": "0" * 16, "attempt": 1}
    block = pa.Table.from_pylist([row] * ROWS_PER_PART, schema=schema)
    store = open_store(str(out))
    ledger = Ledger(store)
    for start in range(0, len(ids) - ROWS_PER_PART, ROWS_PER_PART):
        part = block.set_column(0, schema.field(0), pa.array(ids[start : start + ROWS_PER_PART]))
        ledger._add_part(ASSETS, part)
        ledger.done.add(ledger._snapshots[ASSETS]._fresh[f"{ASSETS}/part-{start // ROWS_PER_PART:06d}.parquet"])
        ledger._snapshots[ASSETS].save(ledger.done)
    rest = ids[len(ids) - 1 - (len(ids) - 1) % ROWS_PER_PART :]
    commit_block(store, [row | {"prompt_id": name} for name in rest], schema)


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Peaks of this process's memory (GiB), of the object store and of what it spilled (MiB)."""
    seen, stop = {"rss": 0.0, "store": 0.0, "spilled": 0.0}, threading.Event()

    def look() -> None:
        while not stop.wait(1.0):
            rss = psutil.Process(os.getpid()).memory_info().rss / 2**30
            seen["rss"] = max(seen["rss"], round(rss, 2))
            for name, value in _store().items():
                seen[name] = max(seen[name], value)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _store() -> dict[str, float]:
    import ray
    from ray._private.internal_api import memory_summary

    if not ray.is_initialized():
        return {}
    try:
        text = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    except Exception:
        return {}
    found = {"store": r"Plasma memory usage (\d+) MiB", "spilled": r"Spilled (\d+) MiB"}
    return {name: float(match[1]) for name, pattern in found.items() if (match := re.search(pattern, text))}


if __name__ == "__main__":
    main()
