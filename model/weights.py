"""Find a generator's weights, their licence and precision: `locate`, `license_of`, `dtype_of`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import Device, Precision
from model.digests import CACHE
from model.digests import revision_of as revision_of
from model.remote import open_address
from model.views import VIEWS_FILE
from recon.user_error import UserError

if TYPE_CHECKING:
    import torch

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"
SIBLINGS = ("autoencoder", "text_encoder")
"""The folders beside a pocket generator's own that it needs."""
PATCH = 16
"""Pixels of a frame for each position of a pocket autoencoder's latents, along a side."""
_CACHE = CACHE
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What a pipeline's component folders hold; never code, never pickles."""

_SINGLE = (".safetensors", ".onnx")
"""What an address ends in that names a file and no folder."""

Reader = Callable[[str], dict[str, Any]]
"""A model folder's json file by its name, as "unet/config.json"; empty where it is missing."""


def locate(spec: str, pocket_folder: str, revision: str | None = None) -> Path:
    """The local folder of a model.

    Args:
        spec: "pocket", a folder, an s3:// address (copied once a machine, into IM3D_CACHE or ~/.cache/im3d-factory),
            or a hub id (downloaded once into the hub's cache).
        pocket_folder: which of the embedded models "pocket" means, as "image".
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: if `spec` is none of these, or the folder holds no model.
        UserError: if the weights cannot be had.
    """
    if spec == "pocket":
        return POCKET_WEIGHTS / pocket_folder
    if "://" in spec:
        return _copied(spec)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "model_index.json")):
            raise UserError(f"{spec} holds neither config.json nor model_index.json; give a model's own folder")
        return folder
    if spec.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(spec):
        raise UserError(f"model {spec!r} is not a folder; give 'pocket', a folder, an s3:// address or a hub id")
    return _downloaded(spec, revision)


def _downloaded(hub_id: str, revision: str | None) -> Path:
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from diffusers.pipelines import pipeline_utils
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    pipeline_utils.logger.setLevel("ERROR")  # that the hub is not reached is said below, once
    try:
        try:
            return Path(DiffusionPipeline.download(hub_id, revision=revision, use_safetensors=True))
        except ValueError:  # an index that names a pipeline class of its own
            return _snapshot(hub_id, revision)
    except Exception as error:
        raise UserError(
            f"the weights of {hub_id} are no local folder, not in the hub cache and not downloadable "
            f"({type(error).__name__}): run `hf download {hub_id}` where there is network and set HF_HOME to that "
            "cache, or give the path of a copy"
        ) from error


def _snapshot(hub_id: str, revision: str | None) -> Path:
    """The component folders that the repository's index names, without its code."""
    from huggingface_hub import hf_hub_download, snapshot_download

    index = json.loads(Path(hf_hub_download(hub_id, "model_index.json", revision=revision)).read_text())
    parts = [name for name, value in index.items() if isinstance(value, list)]
    patterns = ["model_index.json", "README.md", VIEWS_FILE, *(f"{part}/{kind}" for part in parts for kind in _FILES)]
    return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))


def locate_file(spec: str) -> Path:
    """The local copy of one safetensors file.

    Args:
        spec: a file, a folder that holds one, an address of a file, or "hub-id:file".

    Raises:
        UserError: if it is none of these.
        UserError: if it cannot be had.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise UserError(f"{spec} holds {len(found)} *.safetensors; name the one file that is meant")
        return found[0]
    if not spec.endswith(".safetensors"):
        raise UserError(f"{spec} is no safetensors file; pickled weights are not read: convert it to safetensors")
    if path.is_file():
        return path
    if "://" in spec:
        address, _, name = spec.rpartition("/")
        return _copied(address) / name
    hub_id, _, name = spec.partition(":")
    if not _HUB_ID.fullmatch(hub_id) or not name:
        raise UserError(f"{spec} is no file; give a file, a folder with one, an s3:// address or 'hub-id:file'")
    _hub_file(hub_id, "README.md", None)  # which states the licence, and lies beside it then
    file = _hub_file(hub_id, name, None)
    if file is None:
        raise UserError(f"{hub_id} has no {name}, or it is neither in the hub cache nor to be downloaded: check the "
                        f"name, run `hf download {hub_id} {name}` where there is network, or give a copy's path"
                        )  # fmt: skip
    return file


def fetched(spec: str) -> str:
    """A local path of a folder or file: what an address names is copied once a machine, all else is as it is.

    Raises:
        RuntimeError: if the address cannot be read.
    """
    if "://" not in spec:
        return spec
    folder, _, name = spec.rstrip("/").rpartition("/")
    return str(_copied(folder) / name if Path(name).suffix in _SINGLE else _copied(spec))


def reader(spec: str, pocket_folder: str, revision: str | None = None) -> Reader:
    """Reads the json files of a model that need not be here yet; arguments and errors as `locate`."""
    if "://" not in spec and (spec == "pocket" or Path(spec).expanduser().is_dir() or not _HUB_ID.fullmatch(spec)):
        folder = locate(spec, pocket_folder, revision)
        return lambda name: json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    fetch = _remote_text if "://" in spec else _hub_text
    return lambda name: json.loads(fetch(spec, name, revision) or "{}")


def json_beside(folder: str, name: str) -> dict[str, Any]:
    """A json file in a local folder or at an address; empty where it is missing."""
    if "://" in folder:
        return json.loads(_remote_text(folder, name, None) or "{}")
    file = Path(folder).expanduser() / name
    return json.loads(file.read_text()) if file.is_file() else {}


def _remote_text(address: str, name: str, revision: str | None) -> str | None:
    source, path = open_address(address)
    try:
        with source.open_input_stream(f"{path}/{name}") as stream:
            return stream.read().decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read model weights at {address}: {error}") from error


def _hub_text(hub_id: str, name: str, revision: str | None) -> str | None:
    file = _hub_file(hub_id, name, revision) or _downloaded(hub_id, revision) / name
    return file.read_text() if file.is_file() else None


def _hub_file(hub_id: str, name: str, revision: str | None) -> Path | None:
    """One file of a repository, from the cache where there is no network; None if there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, name, revision=revision))
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise UserError(f"cannot read {name} of {hub_id} from the hub ({type(error).__name__}): check the name, "
                        "accept its licence if it is gated, or give the path of a copy") from error  # fmt: skip


def _copied(address: str) -> Path:
    """A copy in this machine's cache, made once however many processes ask; other files at the address make another.

    A copy that is cut off is never seen: it grows beside its place, and moves there when it is whole.
    """
    from filelock import FileLock
    from pyarrow import fs

    source, path = open_address(address)
    try:
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
        raise UserError(f"cannot read model weights at {address}: {error}") from error
    return target / name


def _is_pocket(source: Any, path: str) -> bool:
    """Whether a remote folder holds one of our own generators."""
    try:
        with source.open_input_stream(f"{path}/config.json") as stream:
            return str(json.loads(stream.read()).get("_class_name")).startswith("Pocket")
    except FileNotFoundError:
        return False


def read_json(file: Path) -> dict[str, Any]:
    """The object in a model folder's `file`; raises UserError if the file is missing."""
    if not file.is_file():
        raise UserError(f"{file} is missing; the model's folder is incomplete: download or save it again")
    return json.loads(file.read_text())


def class_name(folder: Path) -> str:
    """The `_class_name` in the folder's config.json or model_index.json, "" if there is none."""
    for name in ("config.json", "model_index.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text()).get("_class_name", "")
    return ""


def own_side(folder: Path) -> int | None:
    """Pixels a side of the pictures that a pocket generator takes and makes; None for another family's folder."""
    if not class_name(folder).startswith("Pocket"):
        return None
    latent = json.loads((folder / "config.json").read_text()).get("latent_size")
    return latent * PATCH if isinstance(latent, int) else None


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
        UserError: if CUDA is asked for and there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "this model is set to run on CUDA and no CUDA GPU is visible: run it on a machine with an NVIDIA GPU, "
            "or take the embedded CPU models with --preset pocket"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def dtype_of(dtype: Precision, device: torch.device, half: Precision = "float16") -> torch.dtype:
    """The torch dtype that a setting means on `device`; `half` is what "auto" means on CUDA."""
    import torch

    if dtype == "auto":
        dtype = half if device.type == "cuda" else "float32"
    return getattr(torch, dtype)
