"""List the families of video models, their settings and views: `FAMILIES`, `describe`, `view_plan`. Nothing heavy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model import weights
from model.config import VideoConfig
from model.views import PAPER_VIEWS, VIEWS_FILE, ViewPlan, declared_views, distance_of, latent_views, uniform_views
from model.weights import Reader
from recon.user_error import UserError

WAN_FRAMES, DROPLET3D_FRAMES = (81, 121), 85
"""Native frames: of Wan's 14B networks, and of TI2V-5B."""
SV3D_VIEWS, SV3D_FOV, SV3D_SIZE = 21, 33.8, 576
SV3D_CIRCLE = 0.89
"""Radius of the object's circle in the picture, as `factory` frames it."""
SETTINGS = ("lora", "lora_scale", "template", "negative_prompt", "frames", "size", "flow_shift", "elevation",
            "direction", "background", "closes", "offload", "storage", "decode_chunk")  # fmt: skip
"""Settings that only some families have a use for."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Family:
    """What a family of turntable models is, apart from its networks."""

    name: str
    adapter: str
    """"module:class" of its `VideoModel`."""
    uses: frozenset[str]
    """Those of `SETTINGS` that it honours."""
    plan: Callable[[VideoConfig, Reader], ViewPlan]
    """Its views, given the settings and the folder's json files."""
    frames: int
    """Of its longest videos where none are set."""
    guidance: float
    """Guidance scale where none is set."""
    strength: float | None
    """Share of the schedule of a refinement where none is set: about as much noise as signal; None: by flow shift."""
    multiple: Callable[[Reader], int]
    """What the side of its frames is a multiple of, in pixels, given the folder's json files."""
    half: Literal["float16", "bfloat16"] = "float16"
    """Its precision on CUDA where none is set."""
    template: str = "{prompt}"
    negative_prompt: str = ""

    def check(self, config: VideoConfig) -> None:
        """Raise ValueError for a setting that this family would silently ignore."""
        defaults = {field.name: field.default for field in dataclasses.fields(VideoConfig)}
        for name in SETTINGS:
            value, default = getattr(config, name), defaults[name]
            if name not in self.uses and value != default:
                able = ", ".join(family.name for family in FAMILIES.values() if name in family.uses)
                raise UserError(f"video.{name} is {value!r} and {config.model} is of family {self.name}, which has "
                                f"no use for it: leave it at {default!r}, or take a model of {able}")  # fmt: skip


def _pocket(config: VideoConfig, read: Reader) -> ViewPlan:
    return uniform_views(PAPER_VIEWS)


def _uniform(config: VideoConfig, read: Reader) -> ViewPlan:
    return uniform_views(config.frames or PAPER_VIEWS, size=config.size)


def _sv3d(config: VideoConfig, read: Reader) -> ViewPlan:
    posed = read("unet/config.json").get("projection_class_embeddings_input_dim", 256) > 256
    if posed and config.elevation is None:
        raise UserError("video.elevation is not set and SV3D_p takes the image's elevation: give it in degrees, "
                        "as 10, or take SV3D_u, which needs none")  # fmt: skip
    if not posed and config.elevation is not None:
        raise UserError(f"video.elevation is {config.elevation} and SV3D_u takes none: leave it unset, "
                        "or take SV3D_p")  # fmt: skip
    return uniform_views(
        SV3D_VIEWS, fov_degrees=SV3D_FOV, distance=distance_of(SV3D_FOV, SV3D_CIRCLE), size=config.size or SV3D_SIZE,
        elevation=math.radians(config.elevation) if config.elevation is not None else None,
    )  # fmt: skip


def _check_latent_frames(config: VideoConfig) -> None:
    if config.frames is not None and config.frames % 4 != 1:
        near = config.frames // 4 * 4 + 1
        raise UserError(f"video.frames is {config.frames}; this family's latents hold 4 frames each after the first: "
                        f"give 4k + 1, as {near}")  # fmt: skip


def _wan(config: VideoConfig, read: Reader) -> ViewPlan:
    _check_latent_frames(config)
    native = WAN_FRAMES[bool(read("model_index.json").get("expand_timesteps"))]
    return latent_views(
        config.frames or native, closes=config.closes, clockwise=config.direction == "cw", size=config.size,
        background=config.background or "white", exact=False,
    )  # fmt: skip


def _droplet3d(config: VideoConfig, read: Reader) -> ViewPlan:
    _check_latent_frames(config)
    return latent_views(
        config.frames or DROPLET3D_FRAMES, closes=config.closes, clockwise=config.direction == "cw",
        size=config.size or 512, background=config.background or "black", exact=config.direction != "auto",
    )  # fmt: skip


def _any_side(read: Reader) -> int:
    return 1


def _of_vae(read: Reader) -> int:
    """Pixels of a latent, along a side; the UNets take any number of these."""
    return 2 ** (len(read("vae/config.json").get("block_out_channels", (1, 2, 4, 4))) - 1)


def _wan_multiple(read: Reader) -> int:
    patch = read("transformer/config.json").get("patch_size", (1, 2, 2))
    return int(read("vae/config.json").get("scale_factor_spatial", 8)) * patch[1]


def _droplet3d_multiple(read: Reader) -> int:
    return _of_vae(read) * read("transformer/config.json").get("patch_size", 2)


_ON_GPU = {"size", "offload", "storage"}
_TURNED = {"frames", "direction", "background", "closes", "lora", "lora_scale", "template", "negative_prompt"}
_ALL = (
    Family(name="pocket", frames=PAPER_VIEWS,
           adapter="model.pocket.video:PocketVideoModel", uses=frozenset(), plan=_pocket, multiple=_any_side,
           guidance=3.0, strength=0.5),
    Family(name="i2vgen-xl", frames=PAPER_VIEWS,
           adapter="model.i2vgen_xl:I2VGenXLVideoModel", plan=_uniform, multiple=_of_vae, guidance=3.0, strength=0.5,
           uses=frozenset(_ON_GPU | {"frames", "decode_chunk", "template", "negative_prompt"})),
    Family(name="svd", frames=PAPER_VIEWS,
           adapter="model.stable_video:StableVideoModel", plan=_uniform, multiple=_of_vae, guidance=3.0, strength=0.29,
           uses=frozenset(_ON_GPU | {"frames", "decode_chunk"})),
    Family(name="sv3d", frames=SV3D_VIEWS,
           adapter="model.sv3d:SV3DModel", plan=_sv3d, multiple=_of_vae, guidance=2.5, strength=0.29,
           uses=frozenset(_ON_GPU | {"elevation", "decode_chunk"})),
    Family(name="wan", frames=WAN_FRAMES[1],
           adapter="model.wan:WanVideoModel", plan=_wan, multiple=_wan_multiple, guidance=5.0, strength=None,
           half="bfloat16", uses=frozenset(_ON_GPU | _TURNED | {"flow_shift"})),
    Family(name="droplet3d", frames=DROPLET3D_FRAMES,
           adapter="model.droplet3d:Droplet3DModel", plan=_droplet3d, multiple=_droplet3d_multiple,
           guidance=6.0, strength=0.5, uses=frozenset(_ON_GPU | _TURNED), half="bfloat16",
           negative_prompt="The video is low quality, blurry, distortion.",
           template="{prompt} The video is of high quality, and the view is very clear. The camera completes a full "
                    "360-degree rotation around the object."),
)  # fmt: skip
FAMILIES = {family.name: family for family in _ALL}
_CLASSES = {
    "I2VGenXLPipeline": "i2vgen-xl",
    "StableVideoDiffusionPipeline": "svd",
    "StableVideo3DDiffusionPipeline": "sv3d",
    "WanImageToVideoPipeline": "wan",
}
_PREFIXES = {"Pocket": "pocket", "Droplet3D": "droplet3d"}


def family_of(spec: str, read: Reader) -> Family:
    """The family whose pipeline class the folder's index names.

    Raises:
        UserError: if it is no turntable model's.
    """
    name = (read("config.json") or read("model_index.json")).get("_class_name", "")
    found = _CLASSES.get(name) or next((kind for prefix, kind in _PREFIXES.items() if name.startswith(prefix)), None)
    if found is None:
        known = ", ".join([*(f"{prefix}*" for prefix in _PREFIXES), *_CLASSES])
        raise UserError(f"{spec} is a {name or 'folder without model_index.json'}; a turntable model is one of {known}")
    return FAMILIES[found]


def describe(config: VideoConfig) -> tuple[Family, ViewPlan]:
    """Family and views of the configured model, from its json files alone: no weights are read or fetched.

    Raises:
        UserError: if the model is no turntable model, or a setting is not for its family.
        UserError: if its files cannot be had.
    """
    read = weights.reader(config.model, "video", config.revision)
    family = family_of(config.model, read)
    family.check(config)
    plan = declared_views(family.plan(config, read), read(VIEWS_FILE))
    if config.lora and config.frames is None:  # of other frames than it was trained on a LoRA promises nothing
        plan = declared_views(plan, _views_of_lora(config.lora))
    check_side("video.size", plan.size, family.multiple(read), config.model)
    return family, plan


def _views_of_lora(lora: str) -> dict[str, Any]:
    """What the `VIEWS_FILE` beside a LoRA that was trained here says; of several the first that has one."""
    for part in lora.split(","):
        folder = part.strip() if Path(part.strip()).suffix != ".safetensors" else part.strip().rpartition("/")[0]
        here = "://" in folder or Path(folder).expanduser().is_dir()
        if here and (found := weights.json_beside(folder, VIEWS_FILE)):
            return found
    return {}


def side_multiple(config: VideoConfig) -> int:
    """What the side of the frames is a multiple of, in pixels; errors as `describe`."""
    read = weights.reader(config.model, "video", config.revision)
    return family_of(config.model, read).multiple(read)


def check_side(setting: str, side: int | None, multiple: int, model: str) -> None:
    """Raise UserError for a side, if one is set, that a model has no latents of."""
    if side is not None and side % multiple:
        near = max(1, round(side / multiple)) * multiple
        raise UserError(f"{setting} is {side} and {model} makes frames of a multiple of {multiple} pixels a side: "
                        f"take {near}")  # fmt: skip


def view_plan(config: VideoConfig) -> ViewPlan:
    """The views of the configured model; see `describe`."""
    return describe(config)[1]


def most_frames(config: VideoConfig) -> int:
    """How many frames a video has at most, for a model whose files cannot be read here.

    Of the families that its address names, or of all where it names none.
    """
    named = [family for family in FAMILIES.values() if family.name in config.model.lower()]
    return config.frames or max(family.frames for family in named or FAMILIES.values())
