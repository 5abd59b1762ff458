"""Where networks lie, and whether they have room there."""

import pytest
import torch
from torch import nn

from model.config import Offload, Storage
from model.parts import Parts, check_room


def networks() -> dict[str, nn.Module]:
    """1000, 400 and 200 bytes of weights in 16 bits."""
    sizes = {"transformer": 500, "text_encoder": 200, "vae": 100}
    return {name: nn.Linear(size, 1, bias=False, dtype=torch.float16) for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("offload", "storage", "needed"),
    [("none", "same", 1600), ("none", "float8", 1100), ("parts", "same", 1000), ("parts", "float8", 500),
     ("layers", "same", 400)],
)  # fmt: skip
def test_what_lies_on_the_device_at_once_must_fit(offload: Offload, storage: Storage, needed: int) -> None:
    check_room(networks(), ["transformer"], offload, storage, needed)
    with pytest.raises(RuntimeError, match=f"are free with video.offload {offload} and video.storage {storage}: set"):
        check_room(networks(), ["transformer"], offload, storage, needed - 1)


def test_one_part_at_a_time_is_on_the_device() -> None:
    parts = Parts(networks(), ["transformer"], torch.device("meta"), torch.float16, "parts")
    assert all(part.weight.device.type == "cpu" for part in parts.networks.values())
    assert parts.use("vae").weight.device.type == "meta"
    parts.networks["vae"].to = lambda *_: parts.networks["vae"]  # what went to meta does not come back
    parts.use("transformer")
    assert {name: part.weight.device.type for name, part in parts.networks.items()} == {
        "transformer": "meta", "text_encoder": "cpu", "vae": "meta",
    }  # fmt: skip
