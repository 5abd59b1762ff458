"""Read the files of judges: `digest_of` names them, `named_file` and `from_transformers` refuse what is incomplete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recon.user_error import UserError

CHUNK = 16 << 20


def digest_of(paths: Iterable[Path]) -> str:
    """ "sha256:..." of the names and bytes of files, whatever their order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def files_of(folder: Path) -> list[Path]:
    """The files that lie directly in a folder, hidden ones left out."""
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def named_file(path: str | Path, what: str) -> Path:
    """The path of a file.

    Raises:
        UserError: when it is none, saying `what` it should hold.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"{found} is no file; give {what}")
    return found


def model_folder(path: str | Path, what: str) -> Path:
    """The path of a folder of transformers with config and safetensors.

    Raises:
        UserError: when it, or one of these, is missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give {what} as transformers saves it")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder / 'config.json'} is missing; give {what} as transformers saves it")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no .safetensors file; give {what} as transformers saves it, not pickled")
    return folder


def from_transformers(auto: Any, folder: Path, **settings: Any) -> Any:
    """``auto.from_pretrained(folder)`` in evaluation mode, from this folder alone and without made-up weights.

    Raises:
        UserError: in one sentence, when files or parameters are missing.
    """
    try:
        model, report = auto.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **settings
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be loaded: {_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} parameters, {missing[0]} first; give the whole checkpoint")
    return model.requires_grad_(False).eval()


def processor_from(auto: Any, folder: Path) -> Any:
    """``auto.from_pretrained(folder)`` from this folder alone.

    Raises:
        UserError: in one sentence, when files are missing.
    """
    try:
        return auto.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no complete processor: {_line(error)}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
