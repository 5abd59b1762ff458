"""Compare scoring with a plain loop over open_clip, and watch the driver's memory: `speed`, `driver_mb`.

    python -m benchmarks.evaluate [--limit 8] [--assets-in-memory 10000] [--clip pocket]

Videos of noise are scored by the stage of `im3d evaluate` (decode, CLIP, ranks, commit) and by a loop that decodes
them and calls `encode_image` on batches of 32, in turns. Then the driver's share of an evaluation (the pool of prompts,
slices of work, statistics of scores) is run on tables of a tenth of the assets and of all.

Prints one line of JSON: ``views_per_second``, ``ratio_to_plain`` (of the stage over the loop, by
processor time, the median of turns), ``driver_mb`` and ``driver_mb_tenth`` (peak growth of resident memory).
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

VIEWS, SIZE, BATCH = 16, 128, 32
ROWS_PER_PART = 256


@dataclass(kw_only=True, slots=True)
class Options:
    """What to score."""

    limit: int = 8
    """Videos of 16 views."""
    turns: int = 5
    """How often either scores them all."""
    clip: str = "pocket"
    """The model that judges: 'pocket', a folder, or an open_clip architecture."""
    assets_in_memory: int = 10_000
    """Assets of the larger table."""
    threads: int = 1
    """Of the model."""


def videos(count: int, seed: int = 0) -> Iterator[bytes]:
    """Coarse noise as mp4."""
    from recon.video_io import encode_mp4

    random = np.random.default_rng(seed)
    for _ in range(count):
        coarse = random.integers(0, 256, (VIEWS, 8, 8, 3), dtype=np.uint8)
        yield encode_mp4(coarse.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2))


def plain_loop(model: Any, preprocess: Any, clips: list[bytes], text: Any) -> np.ndarray:
    """100 x cosine with one text, a batch at a time, as a user of open_clip would write it."""
    import torch
    from PIL import Image
    from torch.nn import functional

    from recon.video_io import decode_mp4

    frames = [frame for clip in clips for frame in decode_mp4(clip)]
    scores = []
    with torch.inference_mode():
        for start in range(0, len(frames), BATCH):
            batch = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames[start : start + BATCH]])
            scores.append(100 * functional.normalize(model.encode_image(batch).float(), dim=-1) @ text)
    return torch.cat(scores).numpy()


def speed(options: Options) -> dict[str, float]:
    """Views a second of the stage and of the loop."""
    import pyarrow as pa
    import torch

    from eval.similarity import Protocol
    from factory.evaluation.line import SCORE_LINE, Measures
    from factory.evaluation.stage import Evaluate
    from factory.storage.interface import StorageConfig
    from factory.storage.store import open_store

    prompts = [f"a thing of kind {k}" for k in range(options.limit)]
    with tempfile.TemporaryDirectory() as folder:
        store, clips = open_store(folder), list(videos(options.limit))
        for place, clip in enumerate(clips):
            store.put(f"{place}.mp4", clip)
        stage = Evaluate(
            Protocol(num_views=VIEWS, size=SIZE), Measures(), [options.clip], {}, folder, folder, "benchmark",
            StorageConfig(),             threads=options.threads,
        )  # fmt: skip
        scorer = stage.scorers[0]
        texts = scorer.embed_texts(prompts)
        stage.prompts = {scorer.name: dict(zip(prompts, texts.numpy(), strict=True))}
        rows = [
            {"prompt_id": str(place), "prompt": prompt, "frames_path": f"{place}.mp4", "attempt": 1}
            for place, prompt in enumerate(prompts)
        ]
        table = pa.Table.from_pylist(rows, schema=SCORE_LINE)
        model = copy.deepcopy(scorer.model).to(memory_format=torch.contiguous_format)  # as open_clip loads it
        plain_loop(model, scorer.preprocess, clips[:1], texts[0])
        stage(table)
        times = np.array([(_timed(lambda: stage(table)),
                           _timed(lambda: plain_loop(model, scorer.preprocess, clips, texts[0])))
                          for _ in range(options.turns)])  # fmt: skip
    return {
        "views_per_second": round(options.limit * VIEWS / float(np.median(times[:, 0])), 1),
        "ratio_to_plain": round(float(np.median(times[:, 1] / times[:, 0])), 3),
    }


def _timed(work: Any) -> float:
    """Processor seconds of all threads, which other programs disturb less than the clock."""
    started = time.process_time()
    work()
    return time.process_time() - started


def driver_mb(count: int) -> float:
    """MiB by which a process grows that does the driver's share of an evaluation of `count` assets."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        _write_tables(folder, count)
        with context.Pool(1) as pool:
            return pool.apply(_drive, (folder, count))


def _write_tables(folder: str, count: int) -> None:
    """A run's assets, and their scores by a model `m`, of random content."""
    from factory.evaluation.line import Measures, scores_schema
    from factory.ledger.ledger import ASSETS, SCORES
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns
    from factory.storage.store import open_store

    store, random = open_store(folder), np.random.default_rng(0)
    for number, start in enumerate(range(0, count, ROWS_PER_PART)):
        ids = range(start, min(start + ROWS_PER_PART, count))
        known = [{"prompt_id": f"asset-{k:07d}", "prompt": f"a thing of kind {k % (count // 2)}"} for k in ids]
        file = {"ply": "asset.ply", "generated": "generated.mp4", "image": "image.png"}
        made = [
            row | {name: {"path": f"files/{row['prompt_id']}/{end}"} for name, end in file.items()} for row in known
        ]
        put_table(store, f"{ASSETS}/part-{number:06d}.parquet", made, assets_schema(written_columns()))
        schema = scores_schema(["m"], Measures(truth="t"))
        numbers = [field.name for field in schema if str(field.type) in ("double", "int64")]
        values = random.random((len(known), len(numbers)))
        scored = [row | dict(zip(numbers, part, strict=True)) for row, part in zip(known, values.tolist(), strict=True)]
        scored = [row | {"clip_text_renders_m_views": [0.5] * VIEWS, "rank_text_frames_m": 1, "rank_text_renders_m": 2}
                  for row in scored]  # fmt: skip
        put_table(store, f"evaluations/e/{SCORES}/part-{number:06d}.parquet", scored, schema)


def put_table(store: Any, key: str, rows: list[dict], schema: Any) -> None:
    """Write rows as a parquet object."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)
    store.put(key, stream.getvalue())


def _drive(folder: str, count: int) -> float:
    import torch

    from eval.score_columns import rank_columns
    from eval.similarity import prompt_pool
    from factory.evaluation.line import Measures, assets_of_run, slices
    from factory.evaluation.score_tables import mean_columns, read_scores, summaries
    from factory.ledger.ledger import SCORES, Ledger
    from factory.storage.store import open_store
    from recon.memory import PeakMemory

    measures = Measures(truth="t").columns()
    with PeakMemory(torch.device("cpu")) as memory:
        ledger, empty = Ledger(open_store(folder)), Ledger(open_store(f"{folder}/evaluations/none"), SCORES)
        pool = prompt_pool(row["prompt"] for row in assets_of_run(ledger))
        seen = sum(work.assets.num_rows for work in slices(assets_of_run(ledger), empty))
        finished = Ledger(open_store(f"{folder}/evaluations/e"), SCORES)
        scores = read_scores(finished, mean_columns(["m"], measures) + rank_columns(["m"]))
        found = summaries(scores, ["m"], measures)
    if (seen, len(scores), found["psnr_renders"]["count"]) != (count, count, count // 2) or not pool:
        raise RuntimeError(f"{seen} assets and {len(scores)} scores were read of {count}")
    return round((memory.bytes or 0) / 2**20, 1)


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    found: dict[str, Any] = speed(options)
    found["driver_mb_tenth"] = driver_mb(options.assets_in_memory // 10)
    found["driver_mb"] = driver_mb(options.assets_in_memory)
    found |= {"assets_in_memory": options.assets_in_memory, "clip": options.clip, "videos": options.limit}
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
