"""Read published prompt suites (DreamFusion's library, T3Bench, GPTEval3D) from a copy of the user's: `read_suite`.

Files are taken as their repositories have them, or as JSON lines with `id` and `prompt`. Nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.prompts.prompt_table import PromptTable, read_prompts
from factory.storage.interface import StorageConfig
from factory.storage.store import Store, open_store
from recon.user_error import UserError

MAX_BYTES = 16 << 20


@dataclass(kw_only=True, slots=True)
class Suite:
    """Where the prompts of a suite are found in a folder: the first of `files` that is there."""

    files: tuple[str, ...]
    origin: str
    count: int
    """Prompts of the published list."""


SUITES = {
    "dreamfusion": Suite(
        files=("dreamfusion.jsonl", "load/prompt_library.json", "prompt_library.json"),
        origin="threestudio, load/prompt_library.json",
        count=415,
    ),
    **{
        f"t3bench-{part}": Suite(
            files=(f"t3bench-{part}.jsonl", f"data/prompt_{part}.txt", f"prompt_{part}.txt"),
            origin=f"T3Bench, data/prompt_{part}.txt",
            count=100,
        )
        for part in ("single", "surr", "multi")
    },
    "gpteval3d": Suite(
        files=("gpteval3d.jsonl", "data/tournament-v0/prompts.txt", "prompts.txt", "prompts.json"),
        origin="GPTEval3D, tournament-v0",
        count=110,
    ),
}


def read_suite(name: str, path: str) -> list[dict[str, str]]:
    """The prompts of a suite, in its order, as rows `prompt_id` and `prompt`.

    Args:
        name: one of `SUITES`.
        path: its file, or the folder that has it.

    Raises:
        ValueError: for an unknown name, a missing or unreadable file, or one without prompts.
    """
    if name not in SUITES:
        raise UserError(f"suite {name!r} not found. Available: {', '.join(SUITES)}")
    file = _file(name, Path(path).expanduser())
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file} has {file.stat().st_size} bytes; a list of prompts has at most {MAX_BYTES}")
    try:
        prompts = _prompts(file.read_text("utf-8-sig"), file.suffix.lower(), name)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no {SUITES[name].origin} ({type(error).__name__}: {error}); give that file, or JSON lines "
            "with a column prompt"
        ) from error
    if not prompts:
        raise UserError(f"{file} holds no prompts; give {SUITES[name].origin}")
    return [{"prompt_id": f"{name}-{place:04d}", "prompt": prompt} for place, prompt in enumerate(prompts)]


def write_suite(store: Store, name: str, path: str) -> str:
    """Write a suite as a table into a folder; returns its address, for `read_prompts`.

    Raises:
        ValueError: as `read_suite`.
    """
    rows = read_suite(name, path)
    key = f"suites/{name}.jsonl"
    store.put(key, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return f"{store.root.rstrip('/')}/{key}"


def read_choice(
    prompts: str, suite: str, path: str, limit: int | None, image_root: str | None, storage: StorageConfig,
    image_hosts: Sequence[str] = (),
) -> PromptTable:  # fmt: skip
    """The table that is named, or else that of the suite, which is kept nowhere.

    Raises:
        UserError: as `check_choice`, `read_prompts` and `read_suite`.
    """
    check_choice(prompts, suite, path)
    if prompts:
        return read_prompts(prompts, limit, image_root, storage, image_hosts)
    with tempfile.TemporaryDirectory() as folder:
        return read_prompts(write_suite(open_store(folder), suite, path), limit)


def check_choice(prompts: str, suite: str, path: str) -> None:
    """Raises ValueError unless either a table is named, or a suite and its path."""
    if bool(prompts) == bool(suite) or bool(suite) != bool(path):
        raise UserError("give either --prompts, or --suite with --suite-path")


def _file(name: str, path: Path) -> Path:
    if path.is_file():
        return path
    for candidate in SUITES[name].files:
        if (path / candidate).is_file():
            return path / candidate
    raise UserError(f"{path} holds none of {', '.join(SUITES[name].files)}; give a copy of {SUITES[name].origin}")


def _prompts(text: str, suffix: str, name: str) -> list[str]:
    """The texts of a file: a line each, JSON lines, or JSON (a list, or a list below the suite's name)."""
    if suffix == ".txt":
        found = text.splitlines()
    elif suffix == ".jsonl":
        found = [json.loads(line)["prompt"] for line in text.splitlines() if line.strip()]
    else:
        document = json.loads(text)
        found = document[name] if isinstance(document, dict) else document
        found = [row["prompt"] if isinstance(row, dict) else row for row in found]
    return [prompt.strip() for prompt in found if prompt.strip()]
