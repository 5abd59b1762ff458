"""Where networks lie, and whether they have room there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.config import Offload, Storage
from model.parts import Parts, check_card, check_room, stored_counts


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


@pytest.mark.parametrize(
    ("offload", "storage", "needed"), [("none", "same", 1600), ("none", "float8", 1100), ("layers", "same", 400)]
)
def test_a_card_is_compared_with_what_files_say_of_themselves(
    tmp_path: Path, offload: Offload, storage: Storage, needed: int
) -> None:
    for name, part in networks().items():
        (tmp_path / name).mkdir()
        save_file({"weight": part.weight.detach().float()}, tmp_path / name / "model.safetensors")
    check_card(tmp_path, needed, offload, storage)
    with pytest.raises(RuntimeError, match="or take a larger GPU"):
        check_card(tmp_path, needed - 1, offload, storage)
    whole = (tmp_path / "vae" / "model.safetensors").read_bytes()
    (tmp_path / "vae" / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=r"no whole safetensors file .* download it again"):
        check_card(tmp_path, needed, offload, storage)


def test_a_card_need_not_hold_copies_that_no_loader_reads(tmp_path: Path) -> None:
    """As in a whole clone of a hub repository: variants, and one file with everything."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    weight = {"weight": torch.zeros(500)}
    names = ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16", "model.fp16-00001-of-00002")
    for place in ("sd_xl_base_1.0", *(f"unet/{name}" for name in names)):
        save_file(weight, tmp_path / f"{place}.safetensors")
    assert stored_counts(tmp_path) == {"unet": 500}
    (tmp_path / "model_index.json").unlink()  # a network's own folder: its file lies at the top
    assert stored_counts(tmp_path) == {"": 500, "unet": 500}


def test_one_part_at_a_time_is_on_the_device() -> None:
    parts = Parts(networks(), ["transformer"], torch.device("meta"), torch.float16, "parts")
    assert all(part.weight.device.type == "cpu" for part in parts.networks.values())
    assert parts.use("vae").weight.device.type == "meta"
    parts.networks["vae"].to = lambda *_: parts.networks["vae"]  # what went to meta does not come back
    parts.use("transformer")
    assert {name: part.weight.device.type for name, part in parts.networks.items()} == {
        "transformer": "meta", "text_encoder": "cpu", "vae": "meta",
    }  # fmt: skip
