"""Kill a program again and again, and read what it leaves behind meanwhile: `storm`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from factory.ledger.commit_protocol import COMMITS
from factory.ledger.ledger import ASSETS, DEAD
from factory.storage.interface import Store, Stored

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"actor": 0.55, "worker": 0.15, "raylet": 0.12, "driver": 0.18}
"""What is killed, by share."""
MAX_STARTS = 100
Check = Callable[[Store, dict[str, Any]], bool]
"""Whether the files of an asset row are whole."""


@dataclass
class Reader:
    """Polls an output folder as a user's program would, from records and parts alone.

    Args:
        store: the folder.
        check: whether the files of an asset row are whole.
    """

    store: Store
    check: Check
    seen: dict[str, str] = field(default_factory=dict)
    """Kind of outcome, "asset" or "dead letter", by prompt id."""
    partial: list[str] = field(default_factory=list)
    """Prompts whose asset was visible and not whole, or whose outcome vanished."""
    polls: int = 0
    _read: dict[Stored, list[tuple[dict[str, Any], str]]] = field(default_factory=dict)

    def poll(self) -> None:
        """One look. Records before parts: an outcome that moves meanwhile is seen at least once."""
        visible = set()
        for row, kind in self.rows():
            visible.add(row["prompt_id"])
            if row["prompt_id"] not in self.seen and kind == "asset" and not self.check(self.store, row):
                self.partial.append(row["prompt_id"])
            self.seen.setdefault(row["prompt_id"], kind)
        self.partial += [f"{gone} vanished" for gone in set(self.seen) - visible]
        self.polls += 1

    def rows(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Every row that can be seen, with its kind; one that moves may come twice. An object that has not changed
        since it was read is not read again."""
        before, self._read = self._read, {}
        for folder in (COMMITS, ASSETS, DEAD):
            for item in self.store.objects(f"{folder}/"):
                with contextlib.suppress(KeyError):
                    self._read[item] = before[item] if item in before else self._rows_of(item.key)
                    yield from self._read[item]

    def _rows_of(self, key: str) -> list[tuple[dict[str, Any], str]]:
        table = pq.read_table(io.BytesIO(self.store.get(key)))
        kind = "dead letter" if "error_stage" in table.schema.names else "asset"
        return [(row, kind) for row in table.to_pylist()]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Poll until the block ends; raises what a poll raised."""
        stop, errors = threading.Event(), []

        def loop() -> None:
            try:
                while not stop.wait(0.2):
                    self.poll()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if errors:
            raise errors[0]


def whole(store: Store, row: dict[str, Any]) -> bool:
    """Whether every file that an asset row names is there with its SHA-256, and the Gaussians can be read."""
    from recon.ply import parse_ply

    try:
        for value in row.values():
            if isinstance(value, dict) and value.get("sha256"):
                data = store.get(value["path"])
                if (len(data), hashlib.sha256(data).hexdigest()) != (value["size"], value["sha256"]):
                    return False
        return len(parse_ply(store.get(row["ply"]["path"]), "asset.ply")) == row["num_gaussians"]
    except (KeyError, ValueError):
        return False


def storm(
    command: Sequence[str],
    environment: Mapping[str, str],
    reader: Reader,
    prompts: int,
    kills: int,
    kinds: Iterator[str],
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """Run a command to its end again and again while its processes are killed; what came of it.

    Kills are spread over the outcomes, so that they happen while there is work; one that comes too late is not counted.

    Args:
        kinds: what is killed next, of TARGETS (see `at_random`).
        seconds: after these the command is stopped by SIGTERM; what it has made until then is all there is.

    Returns:
        kills by target, starts, exit code of the last start, processes that outlived their driver, prompts without
        outcome when the time was over, seconds.

    Raises:
        RuntimeError: when it does not come to an end.
    """
    done, started, orphans = Counter[str](), time.monotonic(), 0
    for starts in range(1, MAX_STARTS + 1):
        with _started(command, environment) as process:
            family = []
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - started > seconds:
                    process.terminate()
                    process.wait()
                elif done.total() < kills and len(reader.seen) >= (done.total() + 1) * prompts / (kills + 1):
                    time.sleep(random.uniform(0, 0.5))
                    family = _family(process)
                    if target := _kill(process, next(kinds)):
                        done[target] += 1
                        said = f"{time.monotonic() - started:.0f} s, {len(reader.seen)} outcomes"
                        print(f"{said}, kill {done.total()}: {target}", file=sys.stderr, flush=True)
            code = process.returncode
        orphans += len(survivors(family))
        over = time.monotonic() - started > seconds
        if over or (code in (0, 1) and len(reader.seen) >= prompts):
            return {
                "kills": done.total(),
                **done,
                "starts": starts,
                "exit": code,
                "orphans": orphans,
                "unfinished": max(0, prompts - len(reader.seen)),
                "seconds": time.monotonic() - started,
            }
    raise RuntimeError(f"not done after {MAX_STARTS} starts; {len(reader.seen)} of {prompts} prompts have an outcome")


@contextlib.contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), **quiet)
    try:
        yield process
    finally:
        for member in [*_family(process), process] if process.poll() is None else []:
            with contextlib.suppress(psutil.Error, OSError):
                member.kill()
        process.wait()


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def at_random(seed: int) -> Iterator[str]:
    """Kinds of processes to kill, by the shares of TARGETS."""
    chance = random.Random(seed)
    while True:
        yield chance.choices(list(TARGETS), list(TARGETS.values()))[0]


def survivors(family: Sequence[psutil.Process], seconds: float = 180.0) -> list[psutil.Process]:
    """Those that have not ended by then: a zombie has, and Ray's agents notice a dead raylet in their own time."""
    deadline = time.monotonic() + seconds
    while (found := [member for member in family if _works(member)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _works(member: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE and "Agent" not in member.name()
    return False


def _kill(process: subprocess.Popen, kind: str) -> str | None:
    """SIGKILL one process of a kind; None when there was none, or the program has ended."""
    if process.poll() is not None:
        return None
    found = [member for member in _family(process) if _kind(member) == kind]
    try:
        process.kill() if kind == "driver" else random.choice(found).kill()
    except (IndexError, psutil.Error):
        return None
    return kind


def _kind(member: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, IndexError):
        title = member.cmdline()[0]
        if title.startswith("ray::"):
            return "actor" if "MapWorker" in title else "worker"
        if title.endswith("/raylet"):
            return "raylet"
    return None


def account(store: Store, prompt_ids: Sequence[str]) -> dict[str, int]:
    """Outcomes of the published tables: assets, dead letters, missing ones and duplicates."""
    found = Counter[str]()
    counts = {}
    for folder in (ASSETS, DEAD):
        rows = [
            name
            for key in store.keys(f"{folder}/")
            for name in pq.read_table(io.BytesIO(store.get(key)), columns=["prompt_id"])["prompt_id"].to_pylist()
        ]
        counts[folder] = len(rows)
        found.update(rows)
    missing = len(set(prompt_ids) - set(found))
    return counts | {"missing": missing, "duplicates": found.total() - len(found)}
