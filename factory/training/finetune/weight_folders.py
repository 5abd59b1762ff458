"""Check the folders of a target's weights, whether they are whole and fit together: `read_folders`, `check_fit`.

Only configurations and the first bytes of files are read, and no network is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory.ledger.keys import digest
from factory.storage.store import StorageConfig, Store, open_store, read_json
from factory.training.finetune.targets import UNNAMED
from model.weights import PATCH
from recon.user_error import UserError

SUFFIX = ".safetensors"
SAMPLED_TENSORS, SAMPLED_BYTES = 8, 4096
"""What a fingerprint reads of each file: training changes every number, so a few tell."""
NETWORK = re.compile(r"Model|UNet|Autoencoder|ControlNet")
"""Classes in a model_index.json that have weights; schedulers, tokenizers and processors have none."""


@dataclass(kw_only=True, slots=True)
class WeightFolder:
    """One folder of weights."""

    store: Store
    name: str
    config: dict[str, Any]
    """Its config.json, else its model_index.json; empty without either."""

    @property
    def kind(self) -> str:
        """The class that it holds, `UNNAMED` where its config names none, "" without one."""
        listed = self.config.get("architectures") or [UNNAMED if self.config else ""]
        return str(self.config.get("_class_name") or listed[0])

    @property
    def size(self) -> int | None:
        """The side in pixels that its UNet is made for; None where any will do."""
        latent = self.config.get("latent_size")
        return latent * PATCH if isinstance(latent, int) else None

    def check_files(self) -> None:
        """Look at the length of every file of weights.

        Raises:
            ValueError: where there is none, or one is not whole.
        """
        sizes = {item.key: item.size for item in self.store.objects(f"{self.name}/") if item.key.endswith(SUFFIX)}
        if not sizes:
            raise UserError(f"{self.store.root}/{self.name} holds no *{SUFFIX}; "
                            f"put the weights of its {self.kind} there")  # fmt: skip
        for key in self._listed():
            if key not in sizes:
                raise UserError(f"{self.store.root}/{key} is missing; copy the folder {self.name} again")
        for part, needs in self._parts().items():
            if not any(key.startswith(f"{self.name}/{part}/") and key.endswith(needs) for key in self._keys()):
                raise UserError(f"{self.store.root}/{self.name}/{part} holds no *{needs}, which {self.kind} needs; "
                                f"copy the folder {self.name} again")  # fmt: skip
        for key in sorted(sizes):
            wanted = _size_by_header(self.store, key, sizes[key])
            if wanted != sizes[key]:
                problem = "is no safetensors file" if wanted is None else f"should have {wanted} bytes by its header"
                raise UserError(f"{self.store.root}/{key} has {sizes[key]} bytes and {problem}; copy it again")

    def fingerprint(self, without: str = "") -> str:
        """A digest of samples of the weights; tensors whose names hold `without`, where given, do not count."""
        seen = []
        for key in self._keys():
            if key.endswith(SUFFIX):
                seen += _samples(self.store, key, without)
        return digest(*seen)

    def _keys(self) -> list[str]:
        return list(self.store.keys(f"{self.name}/"))

    def _parts(self) -> dict[str, str]:
        """What a pipeline's model_index.json lists, and how the name of a file ends that each part must hold."""
        listed = {
            name: part[1]
            for name, part in self.config.items()
            if isinstance(part, list) and len(part) == 2 and all(isinstance(word, str) for word in part)
        }
        return {name: SUFFIX if NETWORK.search(kind) else ".json" for name, kind in listed.items()}

    def _listed(self) -> list[str]:
        """The files that the indices of weights in several parts name."""
        indices = [key for key in self._keys() if key.endswith(f"{SUFFIX}.index.json")]
        parts = {
            f"{index.rsplit('/', 1)[0]}/{part}"
            for index in indices
            for part in (read_json(self.store, index) or {}).get("weight_map", {}).values()
        }
        return sorted(parts)


def _samples(store: Store, key: str, without: str) -> list[str]:
    """Name, shape and first bytes of some tensors of a safetensors file."""
    with store.open(key) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        names = sorted(name for name in header if name != "__metadata__" and not (without and without in name))
        found = []
        for name in names[:: max(1, len(names) // SAMPLED_TENSORS)]:
            begin, end = header[name]["data_offsets"]
            stream.seek(8 + length + begin)
            found += [name, str(header[name]["shape"]), stream.read(min(end - begin, SAMPLED_BYTES)).hex()]
    return found


def _size_by_header(store: Store, key: str, size: int) -> int | None:
    """How long a safetensors file should be by its own header; None where there is no such header."""
    with store.open(key) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8:
            return None
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return None


def read_folders(weights: str, names: Iterable[str], storage: StorageConfig) -> dict[str, WeightFolder]:
    """The named folders of a folder of weight folders, also those that are not there.

    Raises:
        ValueError: for a config that is no JSON object.
    """
    store, found = open_store(weights, storage), {}
    for name in names:
        config = read_json(store, f"{name}/config.json") or read_json(store, f"{name}/model_index.json") or {}
        found[name] = WeightFolder(store=store, name=name, config=config)
    return found


def check_fit(folders: Mapping[str, WeightFolder], base: str) -> None:
    """Look whether the pocket UNet in the folder `base` fits the autoencoder and text encoder beside it.

    Raises:
        ValueError: where it does not, or has the temporal layers that only the folder "video" should have.
    """
    unet, temporal = folders[base], base == "video"
    where = f"{unet.store.root}/{base}"
    if unet.config.get("temporal", False) is not temporal:
        raise UserError(f"{where} holds a PocketUNet {'without' if temporal else 'with'} temporal layers; "
                        f"put the weights of `im3d finetune --target {base}` there")  # fmt: skip
    for name, own, other in (
        ("autoencoder", "latent_channels", "latent_channels"), ("text_encoder", "text_dim", "hidden_size"),
    ):  # fmt: skip
        beside = folders[name].config if name in folders else {}
        wants, has = unet.config.get(own), beside.get(other)
        if None not in (wants, has) and wants != has:
            raise UserError(f"{where} is made for {own} {wants}, and {name} beside it has {has}; "
                            "give --weights that were trained together")  # fmt: skip
