"""Where a generator's weights lie, which ones they are, and under which licence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.config import Device, Precision

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"
SIBLINGS = ("autoencoder", "text_encoder")
"""The folders beside a pocket generator's own that it needs."""
_CACHE = Path(os.environ.get("IM3D_CACHE") or Path.home() / ".cache" / "im3d-factory")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(spec: str, pocket_folder: str, revision: str | None = None) -> Path:
    """The local folder of a model.

    Args:
        spec: "pocket", a folder, an s3:// address (copied once a machine, into IM3D_CACHE or ~/.cache/im3d-factory),
            or a hub id (downloaded once into the hub's cache).
        pocket_folder: which of the embedded models "pocket" means, as "image".
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: if `spec` is none of these, or the folder holds no model.
        RuntimeError: if the weights cannot be had.
    """
    if spec == "pocket":
        return POCKET_WEIGHTS / pocket_folder
    if "://" in spec:
        return _copied(spec)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "model_index.json")):
            raise ValueError(f"{spec} holds neither config.json nor model_index.json; give a model's own folder")
        return folder
    if spec.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(spec):
        raise ValueError(f"model {spec!r} is not a folder; give 'pocket', a folder, an s3:// address or a hub id")
    return _downloaded(spec, revision)


def _downloaded(hub_id: str, revision: str | None) -> Path:
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(hub_id, revision=revision, use_safetensors=True))
    except Exception as error:
        raise RuntimeError(
            f"the weights of {hub_id} are no local folder, not in the hub cache and not downloadable "
            f"({type(error).__name__}): run `hf download {hub_id}` where there is network and set HF_HOME to that "
            "cache, or give the path of a copy"
        ) from error


def _copied(address: str) -> Path:
    """A copy in this machine's cache, made once however many processes ask; other files at the address make another.

    A copy that is cut off is never seen: it grows beside its place, and moves there when it is whole.
    """
    from filelock import FileLock
    from pyarrow import fs

    try:
        source, path = fs.FileSystem.from_uri(address.rstrip("/"))
        parent, _, name = path.rpartition("/")
        folders = [name, *SIBLINGS] if _is_pocket(source, path) else [name]
        found = [item for folder in folders
                 for item in source.get_file_info(fs.FileSelector(f"{parent}/{folder}", recursive=True))]  # fmt: skip
        listed = sorted(f"{item.path} {item.size} {item.mtime_ns}" for item in found if item.is_file)
        target = _CACHE / hashlib.sha256("\n".join([address, *listed]).encode()).hexdigest()[:16]
        _CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                growing = target.with_suffix(".growing")
                shutil.rmtree(growing, ignore_errors=True)
                for folder in folders:
                    (growing / folder).mkdir(parents=True)
                    fs.copy_files(f"{parent}/{folder}", str(growing / folder), source, fs.LocalFileSystem())
                growing.rename(target)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"cannot read model weights at {address}: {error}") from error
    return target / name


def _is_pocket(source: Any, path: str) -> bool:
    """Whether a remote folder holds one of our own generators."""
    try:
        with source.open_input_stream(f"{path}/config.json") as stream:
            return str(json.loads(stream.read()).get("_class_name")).startswith("Pocket")
    except FileNotFoundError:
        return False


def read_json(file: Path) -> dict[str, Any]:
    """The object in a model folder's `file`; raises ValueError if the file is missing."""
    if not file.is_file():
        raise ValueError(f"{file} is missing; the model's folder is incomplete: download or save it again")
    return json.loads(file.read_text())


def class_name(folder: Path) -> str:
    """The `_class_name` in the folder's config.json or model_index.json, "" if there is none."""
    for name in ("config.json", "model_index.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text()).get("_class_name", "")
    return ""


def revision_of(folder: Path) -> str:
    """The hub commit of a snapshot, else the sha256 over all safetensors of `folder`.

    Raises:
        ValueError: if there are none, as in a folder of pickled checkpoints.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no *.safetensors; pickled weights are not read: convert them to safetensors")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def license_of(folder: Path) -> str:
    """The licence that the model card (README.md) states in its front matter, else "unknown"."""
    card = folder / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    fields = dict(re.findall(r"^(license(?:_name)?):\s*(.+?)\s*$", front, re.MULTILINE))
    return fields.get("license_name") or fields.get("license") or "unknown"


def device_of(device: Device) -> torch.device:
    """The torch device that a setting means.

    Raises:
        RuntimeError: if CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "this model is set to run on CUDA and no CUDA GPU is visible: run it on a machine with an NVIDIA GPU, "
            "or take the embedded CPU models with --preset pocket"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def dtype_of(dtype: Precision, device: torch.device) -> torch.dtype:
    """The torch dtype that a setting means on `device`."""
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, dtype)


def load_parts(folder: Path, parts: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, nn.Module]:
    """The networks in the subfolders of a pipeline's folder, for inference; an autoencoder that asks for it in float32.

    Args:
        parts: subfolder to the class (of diffusers or transformers) that reads it.

    Raises:
        ValueError: if one is missing or not in safetensors.
    """
    modules = {}
    for name, part in parts.items():
        upcast = read_json(folder / name / "config.json").get("force_upcast", False)
        try:
            module = part.from_pretrained(folder / name, dtype=torch.float32 if upcast else dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / name} has no {part.__name__} in safetensors: {error}") from error
        modules[name] = module.to(device).requires_grad_(False).eval()
    return modules
