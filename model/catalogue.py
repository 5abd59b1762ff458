"""List the public models that the generators are known to work with, their parts and terms: `entry_of`."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Use = Literal["image", "video", "lora"]
_KINDS = ("*.json", "*.safetensors", "*.txt", "*.model")
_ABOUT = ("README.md", "LICENSE*")
_VARIANTS = ("*.fp16.*", "*.bf16.*", "*non_ema*", "*openvino*", "*flax*")
SAFE = (".json", ".safetensors", ".txt", ".model", ".md", "LICENSE")
"""What files may end in: neither code nor pickles."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Entry:
    """A public model."""

    hub_id: str
    use: Use
    files: tuple[str, ...]
    """Patterns of the files that are wanted; variants in other precisions are left out."""
    license: str
    """As its card states it."""
    gated: bool = False
    """Whether the hub asks for an account that has accepted the licence."""
    restricted: bool = False
    """Whether the licence is not free for every use: it must be accepted by name."""
    gigabytes: float | None = None
    """Of the files that are wanted, where it is known before asking the hub."""
    adapt: Literal["sv3d", "droplet3d"] | None = None
    """What is done with the files once they are here."""

    def wants(self, name: str) -> bool:
        """Whether a file of the repository belongs to it."""
        if any(fnmatchcase(name, pattern) for pattern in _VARIANTS) or not name.endswith(SAFE):
            return False
        return any(fnmatchcase(name, pattern) for pattern in (*_ABOUT, *self.files))


def _parts(*names: str) -> tuple[str, ...]:
    return ("model_index.json", *(f"{name}/{kind}" for name in names for kind in _KINDS))


_CLIP_AND_SCHEDULER = ("feature_extractor", "image_encoder", "scheduler", "unet", "vae")
_WAN = ("image_encoder", "image_processor", "scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2",
        "vae")  # fmt: skip
_SV3D = "sv3d-nc-community, and Stability AI Community License in the card's text"
CATALOGUE: dict[str, Entry] = {
    "sdxl": Entry(
        hub_id="stabilityai/stable-diffusion-xl-base-1.0", use="image", license="openrail++", restricted=True,
        files=_parts("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"),
    ),
    "i2vgen-xl": Entry(
        hub_id="ali-vilab/i2vgen-xl", use="video", license="mit",
        files=_parts(*_CLIP_AND_SCHEDULER, "text_encoder", "tokenizer"),
    ),
    "svd": Entry(
        hub_id="stabilityai/stable-video-diffusion-img2vid", use="video", license="stable-video-diffusion-community",
        gated=True, restricted=True, files=_parts(*_CLIP_AND_SCHEDULER),
    ),
    "sv3d-u": Entry(
        hub_id="stabilityai/sv3d", use="video", license=_SV3D, gated=True, restricted=True, gigabytes=9.36,
        files=("sv3d_u.safetensors",), adapt="sv3d",
    ),
    "sv3d-p": Entry(
        hub_id="stabilityai/sv3d", use="video", license=_SV3D, gated=True, restricted=True, gigabytes=9.37,
        files=("sv3d_p.safetensors",), adapt="sv3d",
    ),
    "wan2.1-i2v-14b-480p": Entry(
        hub_id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.1-i2v-14b-720p": Entry(
        hub_id="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.2-i2v-a14b": Entry(
        hub_id="Wan-AI/Wan2.2-I2V-A14B-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.2-ti2v-5b": Entry(
        hub_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.1-rotate": Entry(
        hub_id="Remade-AI/Rotate", use="lora", license="apache-2.0", files=("rotate_20_epochs.safetensors",),
    ),
    "droplet3d-5b": Entry(
        hub_id="DropletX/Droplet3D-5B", use="video", license="apache-2.0, on CogVideoX-5B", adapt="droplet3d",
        files=_parts("scheduler", "text_encoder", "tokenizer", "transformer", "vae"),
    ),
}  # fmt: skip


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in CATALOGUE:
        raise ValueError(f"model {name!r} is not in the catalogue; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
