"""Read anyone's folder of videos and models beside a table of prompts, as rows to judge: `assets_of_folder`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from factory.line.stage import Row
from factory.storage.interface import StorageConfig
from recon.user_error import UserError

MODELS = (".ply", ".glb", ".gltf", ".obj")
VIDEOS = (".mp4", ".webm", ".mov")


def assets_of_folder(
    root: str, prompts: str, image_root: str | None = None, storage: StorageConfig | None = None,
    image_hosts: Sequence[str] = (),
) -> Iterator[Row]:  # fmt: skip
    """Videos and models named after the ids of a prompt table, one after the other: `<prompt_id>.mp4`, `.ply`, `.glb`.

    A prompt without files, a file without prompt and an unusable row of the table, with its `error`, are rows too, so
    that they are counted.

    Args:
        root: the folder, local or s3://.
        prompts: the table. image_root: folder that its image paths are relative to, the table's own by default.
        storage: how both are reached. image_hosts: that addresses of its images may name, see `read_prompts`.

    Raises:
        ValueError: when the prompt table or the folder cannot be read.
    """
    from factory.prompts.prompt_table import read_prompts

    table = read_prompts(prompts, None, image_root, storage, image_hosts)
    files = asset_files(store_files(root, storage))
    for prompt in table.prompts:
        known = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "image": prompt.image}
        yield known | files.pop(prompt.prompt_id, {})
    for bad in table.rejected:
        known = {"prompt_id": bad.prompt_id, "prompt": bad.prompt, "error": bad.error_message}
        yield known | files.pop(bad.prompt_id, {})
    for name, found in files.items():
        yield {"prompt_id": name, "prompt": None} | found


def asset_files(names: Iterable[str]) -> dict[str, Row]:
    """Names of files by the id that they begin with: the video as `frames_path`, the model as `model_path`.

    Where two are of one kind, an `error` says so.
    """
    files: dict[str, Row] = {}
    for name in names:
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        kind = "model_path" if suffix in MODELS else "frames_path" if suffix in VIDEOS else None
        if kind:
            known = files.setdefault(path.stem, {})
            if kind in known:
                known["error"] = f"two files are called {path.stem}: {known[kind]} and {name}; keep one"
            known.setdefault(kind, name)
    return files


def store_files(root: str, storage: StorageConfig | None = None) -> list[str]:
    """The names of the files that lie directly in a folder, local or s3://, sorted."""
    import pyarrow.fs

    from factory.storage.store import pyarrow_filesystem

    filesystem, path = pyarrow_filesystem(root, storage)
    try:
        entries = filesystem.get_file_info(pyarrow.fs.FileSelector(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{root} is no folder; give the output of im3d generate or a folder of assets") from error
    return sorted(entry.base_name for entry in entries if entry.type == pyarrow.fs.FileType.File)
