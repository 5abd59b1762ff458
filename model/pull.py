"""Pull public weights to a folder that a generator loads, resumed and checked, no code: `pull`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from model.catalogue import CATALOGUE, Entry, entry_of
from model.digests import file_digest
from model.weights import license_of

DIGESTS = "digests.json"
"""Where a folder's files came from, and the size and sha256 of each."""


class _File(NamedTuple):
    """A file of a repository; the sha256 where the hub tells it."""

    name: str
    size: int
    sha256: str | None


def pull(name: str, target: Path, *, accept: bool = False, hub: str | None = None) -> Path:
    """Download a model of the catalogue into `target`, or what is still missing of it.

    Args:
        accept: that the licence, where it restricts the use, has been read and accepted.
        hub: address of another hub than huggingface.co.

    Raises:
        ValueError: if the name is unknown, or the licence is to be accepted first.
        RuntimeError: if the hub refuses or cannot be reached, or a file is not what the hub says.
    """
    entry = entry_of(name)
    if entry.restricted and not accept:
        raise ValueError(f"{entry.hub_id} is under {entry.license}, which is not free for every use: read it at "
                         f"https://huggingface.co/{entry.hub_id} and pull with --accept-license")  # fmt: skip
    if (target / DIGESTS).is_file() and not check(target):
        return target
    raw = target.with_name(f"{target.name}.download") if entry.adapt == "sv3d" else target
    revision, told = _listed(entry, hub)
    _download(entry, raw, revision, told, hub)
    wrong = [file.name for file in told if not _is_whole(raw / file.name, file.size, file.sha256)]
    for damaged in wrong:
        (raw / damaged).unlink()
    if wrong:
        raise RuntimeError(f"{wrong[0]} of {entry.hub_id} is not what the hub says, and was deleted: pull again")
    _adapt(entry, raw, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    record = {
        "hub_id": entry.hub_id, "revision": revision, "license": license_of(target),
        "files": {path.relative_to(target).as_posix(): {"size": path.stat().st_size, "sha256": file_digest(path)}
                  for path in files if path.name != DIGESTS},
    }  # fmt: skip
    (target / DIGESTS).write_text(json.dumps(record, indent=2))
    return target


def check(folder: Path) -> list[str]:
    """What is wrong with a folder that was pulled, one sentence each; empty if nothing is."""
    try:
        told = json.loads((folder / DIGESTS).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{folder} has no {DIGESTS} that can be read; it is no pulled folder, or its download was cut off: "
                "pull again"]  # fmt: skip
    problems = []
    for name, record in told.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing: pull again")
        elif file.stat().st_size != record["size"]:
            problems.append(f"{name} has {file.stat().st_size} bytes instead of {record['size']}: pull again")
        elif file_digest(file) != record["sha256"]:
            problems.append(f"{name} is not what was pulled: pull again")
    pickles = [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    return problems + [f"{name} is a pickle, which is never read: delete it" for name in pickles]


def _is_whole(file: Path, size: int, sha256: str | None) -> bool:
    return file.stat().st_size == size and (sha256 is None or file_digest(file) == sha256)


def _listed(entry: Entry, hub: str | None) -> tuple[str, list[_File]]:
    """The commit, and the wanted files.

    Raises:
        RuntimeError: if the hub refuses, or has no safetensors of this model.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=hub).model_info(entry.hub_id, files_metadata=True)
    except Exception as error:
        raise _refused(entry, error) from error
    wanted = [item for item in info.siblings or [] if entry.wants(item.rfilename)]
    if not any(item.rfilename.endswith(".safetensors") for item in wanted):
        raise RuntimeError(f"{entry.hub_id} has no safetensors of {', '.join(entry.files[:3])}; pickled weights are "
                           "never read: take another repository")  # fmt: skip
    files = [_File(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else None) for item in wanted]
    return str(info.sha), sorted(files)


def _download(entry: Entry, folder: Path, revision: str, files: Sequence[_File], hub: str | None) -> None:
    """What is missing of the files, each from the byte where an earlier try stopped."""
    from huggingface_hub import hf_hub_url

    for name, size, _ in files:
        file = folder / name
        if file.is_file() and file.stat().st_size == size:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        try:
            _fetch(hf_hub_url(entry.hub_id, name, revision=revision, endpoint=hub), part)
        except Exception as error:
            raise _refused(entry, error) from error
        part.rename(file)


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what an address has beyond it."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    there = part.stat().st_size if part.is_file() else 0
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
        if answer.status_code == 416:  # all of it was there
            return
        hf_raise_for_status(answer)
        with part.open("ab" if answer.status_code == 206 else "wb") as stream:
            for piece in answer.iter_bytes():
                stream.write(piece)


def _refused(entry: Entry, error: Exception) -> RuntimeError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        gate = "accept its licence there with your account and set HF_TOKEN" if entry.gated else "check that it exists"
        return RuntimeError(f"the hub does not give {entry.hub_id}: {gate} (https://huggingface.co/{entry.hub_id})")
    return RuntimeError(f"{entry.hub_id} cannot be downloaded ({type(error).__name__}): pull again where there is "
                        "network, it goes on where it stopped")  # fmt: skip


def _adapt(entry: Entry, raw: Path, target: Path) -> None:
    """What a loaded folder needs that the repository does not have."""
    if entry.adapt == "sv3d":
        from model.sv3d_conversion import convert

        card = raw / "README.md"
        convert(raw / entry.files[0], target, card.read_text(errors="replace") if card.is_file() else "")
        shutil.rmtree(raw)
    if entry.adapt == "droplet3d":
        file = target / "model_index.json"
        index = json.loads(file.read_text()) if file.is_file() else {}
        if not str(index.get("_class_name", "")).startswith("Droplet3D"):
            file.write_text(json.dumps(index | {"_class_name": "Droplet3DPipeline"}, indent=2))


def table() -> str:
    """The catalogue as text, one model a line."""
    rows = [f"{'name':22}{'use':7}{'GB':>6}  {'hub':45}licence"]
    for name, entry in CATALOGUE.items():
        size = f"{entry.gigabytes:.1f}" if entry.gigabytes else "-"
        gate = " (account needed)" if entry.gated else ""
        rows.append(f"{name:22}{entry.use:7}{size:>6}  {entry.hub_id:45}{entry.license}{gate}")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """The command: ``list``, ``NAME FOLDER [--accept-license]`` or ``check FOLDER``."""
    words = [word for word in arguments if word != "--accept-license"]
    if words == ["list"]:
        print(table())
    elif len(words) == 2 and words[0] == "check":
        if problems := check(Path(words[1])):
            raise SystemExit("\n".join(problems))
        print(f"{words[1]} is whole")
    elif len(words) == 2:
        try:
            print(f"{pull(words[0], Path(words[1]), accept=len(words) < len(arguments))} is whole")
        except (ValueError, RuntimeError) as error:
            raise SystemExit(str(error)) from error
    else:
        raise SystemExit("usage: python -m model.pull list | NAME FOLDER [--accept-license] | check FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
