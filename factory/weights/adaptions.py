"""Make of downloaded files what a loader takes: pickled tensors to safetensors, and each family's own: `adapt`.

No code of a repository runs: pickles are read by torch's `weights_only` unpickler, which builds tensors and nothing
else, or by one that builds numpy arrays alone.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

from factory.weights.catalogue import Adaption, Entry
from recon.user_error import UserError


def adapt(entry: Entry, raw: Path, target: Path) -> None:
    """Bring an entry's downloaded files `raw` to the form that is loaded from `target`; the same folder for most.

    Raises:
        UserError: for files that hold something else.
    """
    pickles_to_safetensors(raw)
    if entry.adapt:
        _ADAPTIONS[entry.adapt](entry, raw, target)


def pickles_to_safetensors(folder: Path) -> None:
    """Every `.bin` below a folder as safetensors under the name that loaders look for; the pickles are deleted.

    Raises:
        UserError: for a pickle that asks for anything but tensors; nothing of it is run, and it is deleted.
    """
    import torch
    from safetensors.torch import save_file

    for file in sorted(folder.rglob("*.bin")):
        try:
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
        except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
            file.unlink()
            raise UserError(
                f"{file.name} in {file.parent.name} is no pickle of tensors alone ({str(error).splitlines()[0]}); it "
                "was not run and is deleted: take another repository"
            ) from error
        save_file(tensors, file.with_name(_safe(file.name)), metadata={"format": "pt"})
        file.unlink()
    for index in sorted(folder.rglob("*.bin.index.json")):
        contents = json.loads(index.read_text())
        contents["weight_map"] = {name: _safe(part) for name, part in contents["weight_map"].items()}
        index.with_name(_safe(index.name)).write_text(json.dumps(contents))
        index.unlink()


def _safe(name: str) -> str:
    """What the safetensors of a pickle are called, by diffusers and by transformers."""
    return name.removeprefix("pytorch_").replace(".bin", ".safetensors")


def _sv3d(entry: Entry, raw: Path, target: Path) -> None:
    from model.sv3d_conversion import convert

    card = raw / "README.md"
    convert(raw / entry.files[0], target, card.read_text(errors="replace") if card.is_file() else "")


def _droplet3d(entry: Entry, raw: Path, target: Path) -> None:
    file = target / "model_index.json"
    index = json.loads(file.read_text()) if file.is_file() else {}
    if not str(index.get("_class_name", "")).startswith("Droplet3D"):
        file.write_text(json.dumps(index | {"_class_name": "Droplet3DPipeline"}, indent=2))


def _clip(entry: Entry, raw: Path, target: Path) -> None:
    """OpenAI's towers use QuickGELU, which a configuration that forgets it would load without a word."""
    file = target / "open_clip_config.json"
    config = json.loads(file.read_text()) if file.is_file() else {}
    if not config.get("model_cfg", {}).get("quick_gelu"):
        raise UserError(f"open_clip_config.json of {entry.source} does not say quick_gelu, with which it was trained: "
                        "its scores would be wrong; take another copy")  # fmt: skip


def _lpips(entry: Entry, raw: Path, target: Path) -> None:
    from recon.lpips_export import export
    from recon.perceptual import EXPORTED

    target.mkdir(parents=True, exist_ok=True)
    export(raw / entry.files[0], target / EXPORTED)
    (target / "README.md").write_text(f"---\nlicense: {entry.license}\n---\nFrom {entry.page}.\n")


_ADAPTIONS: dict[Adaption, Callable[[Entry, Path, Path], None]] = {
    "sv3d": _sv3d, "droplet3d": _droplet3d, "clip": _clip, "lpips": _lpips,
}  # fmt: skip
APART: tuple[Adaption, ...] = ("sv3d", "lpips")
"""Those that write another folder than they read."""
