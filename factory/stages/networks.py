"""Name the networks that built-in stages load, by the settings: `generator`, `masks`, `elevation`, `judge`, ..."""

from __future__ import annotations

import math
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.line.network import Network
from model.views import VIEWS_FILE
from recon.config import OrbitConfig
from recon.user_error import UserError

if TYPE_CHECKING:
    from eval.config import ClipConfig
    from factory.config.settings import FactoryConfig, ViewsConfig
    from model.config import ImageConfig, VideoConfig
    from model.views import ViewPlan
    from recon.loss_weights import LossConfig


def generator(kind: str, settings: ImageConfig | VideoConfig) -> Network:
    """The generator of the settings `image` or `video`."""
    from model.weights import locate

    find = partial(locate, settings.model, kind, settings.revision)
    return Network(
        name=kind, address=settings.model, revision=settings.revision, locate=find, check_card=_fits,
        card_bytes=_card_bytes,
    )  # fmt: skip


def turntable(config: FactoryConfig) -> Network:
    """The video model, whose views and image size must go with the other settings (`check_views`)."""
    from model.weights import locate, own_side

    settings = config.video

    def find() -> Path:
        from model.video_models import check_side, side_multiple, view_plan

        place = locate(settings.model, "video", settings.revision)
        plan = view_plan(settings)
        check_views(config, plan)
        if plan.size is None:  # frames are as large as the picture
            check_side("image.size", config.image.size, side_multiple(settings), settings.model)
        side = config.image.size
        if side is not None and (own := own_side(place)) not in (None, side):
            raise UserError(f"image.size is {side}, but the video model {settings.model!r} takes pictures of {own} "
                            f"pixels: give --image.size {own}")  # fmt: skip
        return place

    how: dict[str, Any] = {"offload": settings.offload, "storage": settings.storage}
    return Network(
        name="video", address=settings.model, revision=settings.revision, locate=find,
        check_card=partial(_fits, **how), card_bytes=partial(_card_bytes, **how),
    )  # fmt: skip


def _fits(place: Path, card: int, **settings: Any) -> None:
    """Raise RuntimeError where a card of so many bytes cannot hold the network."""
    from model.parts import check_card

    check_card(place, card, **settings)


def _card_bytes(place: Path, **settings: Any) -> int:
    """What the network takes of a card."""
    from model.parts import card_bytes

    return card_bytes(place, **settings)


def seconds_a_step(settings: VideoConfig) -> float:
    """About how long one network evaluation of a whole turntable takes: 128 px on a CPU, or 512 px on a GPU."""
    return 0.3 if settings.model == "pocket" else 0.6


def loras(settings: VideoConfig) -> list[Network]:
    """The LoRA that is merged into the video model's network, or one for each of its two networks."""
    from model.weights import locate_file

    parts = [part.strip() for part in settings.lora.split(",")] if settings.lora else []
    names = ["LoRA"] if len(parts) == 1 else [f"LoRA {number}" for number in range(1, len(parts) + 1)]
    return [
        Network(name=name, address=part, locate=partial(locate_file, part), check=partial(_lora, settings))
        for name, part in zip(names, parts, strict=True)
    ]


def _lora(settings: VideoConfig, _: Path) -> None:
    """Raise UserError where the LoRA is none of the video model's networks."""
    from model.video import check_lora

    check_lora(settings)


def check_views(config: FactoryConfig, plan: ViewPlan) -> None:
    """Raise UserError where other settings contradict the views that the video model promises."""
    model, masker, orbit = config.video.model, config.views.masks, config.orbit
    if plan.background != "white" and masker == "pocket":
        raise UserError(
            f"{model} shows objects on {plan.background}, and views.masks pocket knows white alone: set --views.masks "
            "u2netp, which is embedded, or isnet"
        )
    if plan.elevation is not None and config.views.elevation is not None:
        raise UserError(
            f"{model} makes views at video.elevation {math.degrees(plan.elevation):g} degrees, and views.elevation is "
            f"{config.views.elevation:g} radians: leave views.elevation unset"
        )
    for name in ("fov_degrees", "distance"):
        said, own, default = getattr(orbit, name), getattr(plan, name), getattr(OrbitConfig(), name)
        if said != default and abs(said - own) > 1e-3 * own:
            raise UserError(
                f"orbit.{name} is {said:g}, and {model} sees objects with {own:g}: leave it unset, or where the model "
                f"was fine-tuned so, say it in {VIEWS_FILE} beside its weights"
            )


def masks(name: str) -> Network:
    """The network of `views.masks`."""
    if name == "pocket":
        return _embedded("recon")
    known = "apache-2.0" if name == "u2netp" else None  # as its authors state it
    return Network(name="masks", address=name, locate=partial(_masks, name), check=_opens, license=known)


def elevation(settings: ViewsConfig) -> list[Network]:
    """The elevation estimator, where nothing fixes the elevation."""
    if settings.elevation is not None:
        return []
    if settings.estimator == "pocket":
        return [_embedded("recon")]
    return [Network(name="estimator", address=settings.estimator, locate=partial(_estimator, settings.estimator))]


def perceptual(settings: LossConfig) -> list[Network]:
    """The network of the fit's perceptual loss, where it has a weight."""
    if not settings.lpips:
        return []
    if settings.perceptual == "pocket":
        return [_embedded("recon")]
    find = partial(_perceptual, settings)
    return [Network(name="perceptual", address=settings.perceptual, locate=find, check=_holds_tensors)]


def yield_gate() -> Network:
    """The network that judges turntables before the fit."""
    return _embedded("recon")


def judge(settings: ClipConfig, number: int = 0) -> Network:
    """The image-text model that scores, or the `number`-th of those beside it."""
    name = f"judge {number + 1}" if number else "judge"
    if settings.model == "pocket":
        return _embedded("eval", name)
    found = partial(_folder, settings.model) if "/" in settings.model else _kept_by_a_library
    return Network(name=name, address=settings.model, revision=settings.pretrained, locate=found)


def _embedded(package: str, name: str | None = None) -> Network:
    """The weights that lie in a package of ours."""
    return Network(name=name or package, address="pocket", locate=partial(_weights, package), license="apache-2.0")


def _weights(package: str) -> Path:
    spec = util.find_spec(package)
    assert spec is not None, f"{package} is a package of ours"
    assert spec.origin is not None, f"{package} has an __init__.py"
    return Path(spec.origin).parent / "weights"


def _estimator(address: str) -> Path:
    from model.weights import fetched

    place = Path(fetched(address)).expanduser()
    if not place.is_dir():
        raise UserError(
            f"views.estimator is {address!r}, which is no folder: make one by im3d finetune --target elevation-dino "
            "and put it there, set --views.estimator pocket, which is embedded, or give --views.elevation"
        )
    return place


def _folder(address: str) -> Path:
    """A local folder, or the copy of one at an address; raises UserError where it is not there."""
    from model.weights import fetched

    place = Path(fetched(address)).expanduser()
    if not place.is_dir():
        raise UserError(f"{address} is no folder")
    return place


def _kept_by_a_library() -> None:
    return None


def _masks(name: str) -> Path:
    """The file of an ONNX masker; raises UserError where the file or the package that runs it is missing."""
    from factory.stages.masker import onnx_file

    if util.find_spec("onnxruntime") is None:
        raise UserError(
            f"views.masks is {name!r} and the package onnxruntime is not installed: pip install 'im3d-factory[paper]', "
            "or set --views.masks pocket"
        )
    return onnx_file(name)


def _opens(place: Path) -> None:
    """Raise UserError for a file that is no whole ONNX masker."""
    from recon.onnx_masker import OnnxMasker

    OnnxMasker(place, threads=1)


def _holds_tensors(place: Path) -> None:
    """Raise UserError for a file of weights that is cut off or none."""
    import torch
    from safetensors import safe_open

    try:
        if place.suffix == ".safetensors":
            with safe_open(place, framework="pt"):
                return
        torch.load(place, map_location="meta", weights_only=True)
    except Exception as error:  # of safetensors, zip files and pickles, which share no base
        raise UserError(f"{place} holds no whole network ({type(error).__name__}: {error}): get it again") from error


def _perceptual(settings: LossConfig) -> Path:
    from model.weights import fetched
    from recon.perceptual import trunk_file

    return trunk_file(settings.perceptual, fetched(settings.perceptual_weights))
