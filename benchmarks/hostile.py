"""Send hostile rows through reader, picture stage and ledger, none executed, nothing fetched: `measure`.

The work happens in a process of its own, whose memory is measured and whose every attempt to connect, to
start a program or to unpickle is noted and refused.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hostile_rows import MARK, Traps, as_csv, jsonl, parquet

BATCH = 8
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "subprocess.Popen", "os.system")
FORBIDDEN += ("os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen")


def main(argv: list[str] | None = None) -> None:
    """Print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=10_000, help="rows in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    figures = measure(arguments.limit, arguments.seed)
    for kind, number in figures.pop("reasons").items():
        print(f"{number:>7}  {kind}")
    print(json.dumps(figures))


def measure(count: int, seed: int = 0) -> dict[str, Any]:
    """Run `count` hostile rows, half of them JSON, a quarter each CSV and parquet; returns the figures."""
    with tempfile.TemporaryDirectory() as folder, _listener() as (url, visits):
        root = Path(folder)
        (root / "tables").mkdir()
        traps = Traps(secret=root / "secret.png", touched=root / "touched", url=url)
        traps.secret.write_text(MARK)
        chance = random.Random(seed)
        counts = {"jsonl": count - 2 * (count // 4), "csv": count // 4, "parquet": count // 4}
        for (name, rows), make in zip(counts.items(), (jsonl, as_csv, parquet), strict=True):
            (root / f"tables/p.{name}").write_bytes(make(rows, chance, traps))
        formats = [name for name, rows in counts.items() if rows]
        before = sorted(path.name for path in root.iterdir())
        started = time.monotonic()
        command = [sys.executable, "-c", "from benchmarks.hostile import child; child()", str(root), *formats]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
        if answer.returncode:
            raise RuntimeError(f"the line broke: {answer.stderr[-2000:]}")
        figures = json.loads(answer.stdout.splitlines()[-1])
        leaked = [str(path) for path in (root / "out").rglob("*") if path.is_file() and MARK in _text(path)]
        after = sorted(path.name for path in root.iterdir() if path.name != "out")
        return figures | {
            "rows": count,
            "missing": count - figures["accounted"],
            "executed": int(traps.touched.exists()),
            "fetched": len(visits) + len(leaked),
            "outside": len(set(after) - set(before)),
            "seconds": round(time.monotonic() - started, 1),
        }


def _text(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


class _listener:
    """An HTTP server on this machine that notes who asks."""

    def __enter__(self) -> tuple[str, list[str]]:
        visits: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                visits.append(self.path)
                self.send_error(404)

            def log_message(self, *_: Any) -> None:
                """Silence."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}", visits

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def child() -> None:
    """The process that does the work: prints its figures as JSON."""

    root, formats = Path(sys.argv[1]), sys.argv[2:]
    stages = _stages(str(root / "out"))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    broken: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        reads_secret = event == "open" and str(arguments[0]).endswith("secret.png")
        if event in FORBIDDEN or reads_secret:
            broken.append(event)
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(watch)
    results: list[tuple[str, str]] = []
    for name in formats:
        results += _run(root / f"tables/p.{name}", root / "out" / name, stages)
    names = [identity for identity, _ in results]
    print(
        json.dumps(
            {
                "accounted": len(set(names)),
                "duplicates": len(names) - len(set(names)),
                "assets": sum(reason == "asset" for _, reason in results),
                "forbidden": len(broken),
                "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                "rss_before_mb": base >> 10,
                "reasons": dict(Counter(reason for _, reason in results).most_common()),
            }
        )
    )


def _stages(out: str) -> Any:
    """The real picture stage over models that draw nothing, and the real commit with one small file an asset."""
    from factory.config.settings import FactoryConfig
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns
    from factory.stages.commit import Commit
    from factory.stages.text_to_image import TextToImage

    class Pictures(TextToImage):
        def load(self) -> None:
            self.model = _Grey()
            self.masker = lambda frames: np.full(frames.shape[:3], 255, np.uint8)

    class Keep(Commit):
        def write(self, row):
            self.store.put(f"files/{row['prompt_id']}/image.npy", row["image"])
            schema = assets_schema(written_columns())
            return {name: row.get(name) for name in schema.names} | {"image": None}, schema

    config = FactoryConfig()
    return Pictures(config), lambda folder: Keep(config, str(folder), "hostile"), config


class _Grey:
    revision, license, num_evaluations, size = "none", "none", {"steps": 0, "forwards": 0}, 128

    def generate(self, prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        return [np.full((8, 8, 3), 128, np.uint8) for _ in prompts]


def _run(table: Path, out: Path, stages: Any) -> list[tuple[str, str]]:
    """A table through the stages into a folder; every id that the folder's ledger then holds, and how it ended."""
    from factory.config.settings import fingerprint
    from factory.ledger.ledger import ASSETS, DEAD, Ledger
    from factory.ledger.schemas import empty_row
    from factory.line.stage import dead_letter
    from factory.prompts.prompt_table import read_prompts
    from factory.prompts.work import PromptWork
    from factory.storage.store import open_store

    pictures, make_commit, config = stages
    commit, ledger = make_commit(out), Ledger(open_store(str(out)))
    read = read_prompts(str(table))
    unusable = [
        empty_row(prompt_id=row.prompt_id, prompt=row.prompt, attempt=1)
        | {"error_stage": "prompts", "error_type": row.error_type, "error_message": row.error_message}
        for row in read.rejected
    ]
    ledger.add_dead_letters(dead_letter(row, fingerprint(config)) for row in unusable)
    work = PromptWork(prompts=read.prompts, config=config)
    for start in range(0, len(work.ids), BATCH):
        commit(pictures(work.table(range(start, min(start + BATCH, len(work.ids))), 1)))
    ledger.refresh()
    ledger.publish()
    prefix = table.suffix
    made = [(f"{prefix}:{row['prompt_id']}", "asset") for row in ledger.rows(ASSETS, ["prompt_id"])]
    columns = ["prompt_id", "error_stage", "error_type"]
    dead = [
        (f"{prefix}:{row['prompt_id']}", f"{row['error_stage']}: {row['error_type']}")
        for row in ledger.rows(DEAD, columns)
    ]
    return made + dead


if __name__ == "__main__":
    main()
