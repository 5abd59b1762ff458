"""Name the networks that built-in stages load, by the settings: `generator`, `masks`, `elevation`, `judge`, ..."""

from __future__ import annotations

import math
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.line.network import Network
from factory.storage.user_error import UserError

if TYPE_CHECKING:
    from eval.config import ClipConfig
    from factory.config.settings import ViewsConfig
    from model.config import ImageConfig, VideoConfig
    from model.views import ViewPlan
    from recon.config import OrbitConfig
    from recon.loss_weights import LossConfig


def generator(kind: str, settings: ImageConfig | VideoConfig) -> Network:
    """The generator of the settings `image` or `video`."""
    from model.weights import locate

    find = partial(locate, settings.model, kind, settings.revision)
    return Network(name=kind, address=settings.model, revision=settings.revision, locate=find, check_card=_fits)


def turntable(settings: VideoConfig, orbit: OrbitConfig, side: int | None = None) -> Network:
    """The video model, whose views must be those that its frames are fitted by (`check_views`).

    Args:
        side: of the images that it gets, in pixels; None where the image model decides.
    """
    from model.weights import locate, own_side

    def find() -> Path:
        from model.video_models import view_plan

        place = locate(settings.model, "video", settings.revision)
        check_views(settings.model, view_plan(settings), orbit)
        if side is not None and (own := own_side(place)) not in (None, side):
            raise UserError(f"image.size is {side}, but the video model {settings.model!r} takes pictures of {own} "
                            f"pixels: give --image.size {own}")  # fmt: skip
        return place

    fits = partial(_fits, offload=settings.offload, storage=settings.storage)
    return Network(name="video", address=settings.model, revision=settings.revision, locate=find, check_card=fits)


def _fits(place: Path, card: int, **settings: Any) -> None:
    """Raise RuntimeError where a card of so many bytes cannot hold the network."""
    from model.parts import check_card

    check_card(place, card, **settings)


def check_views(model: str, plan: ViewPlan, orbit: OrbitConfig) -> None:
    """Raise UserError unless a fit may take a model's frames as one even turn, counter-clockwise, seen as `orbit` says.

    Args:
        model: named in the sentence. plan: the views that the model promises.
    """
    even = all(abs(a - math.tau * k / len(plan)) < 1e-6 for k, a in enumerate(plan.azimuths))
    if not plan.exact or not even or plan.fit is not None or plan.background != "white":
        raise UserError(
            f"the frames of {model} are no even counter-clockwise turn on white whose azimuths are certain, and the "
            "line fits no other yet: take SV3D, or I2VGen-XL or Stable Video Diffusion fine-tuned to such turns"
        )
    seen = {"fov_degrees": plan.fov_degrees, "distance": round(plan.distance, 4)}
    if any(abs(getattr(orbit, name) - value) > 1e-3 * value for name, value in seen.items()):
        flags = " ".join(f"--orbit.{name.replace('_', '-')} {value:g}" for name, value in seen.items())
        raise UserError(
            f"{model} sees objects with a field of view of {plan.fov_degrees:g} degrees from {plan.distance:.4f} "
            f"radii, and orbit says {orbit.fov_degrees:g} and {orbit.distance:g}: give {flags}"
        )


def masks(name: str) -> Network:
    """The network of `views.masks`."""
    if name == "pocket":
        return _embedded("recon")
    known = "apache-2.0" if name == "u2netp" else None  # as its authors state it
    return Network(name="masks", address=name, locate=partial(_masks, name), license=known)


def elevation(settings: ViewsConfig) -> list[Network]:
    """The elevation estimator, where nothing fixes the elevation."""
    if settings.elevation is not None:
        return []
    if settings.estimator == "pocket":
        return [_embedded("recon")]
    return [Network(name="estimator", address=settings.estimator, locate=partial(_folder, settings.estimator))]


def perceptual(settings: LossConfig) -> list[Network]:
    """The network of the fit's perceptual loss, where it has a weight."""
    if not settings.lpips:
        return []
    if settings.perceptual == "pocket":
        return [_embedded("recon")]
    return [Network(name="perceptual", address=settings.perceptual, locate=partial(_perceptual, settings))]


def yield_gate() -> Network:
    """The network that judges turntables before the fit."""
    return _embedded("recon")


def judge(settings: ClipConfig) -> Network:
    """The image-text model that scores."""
    if settings.model == "pocket":
        return _embedded("eval", "judge")
    found = partial(_folder, settings.model) if "/" in settings.model else _kept_by_a_library
    return Network(name="judge", address=settings.model, revision=settings.pretrained, locate=found)


def _embedded(package: str, name: str | None = None) -> Network:
    """The weights that lie in a package of ours."""
    return Network(name=name or package, address="pocket", locate=partial(_weights, package), license="apache-2.0")


def _weights(package: str) -> Path:
    spec = util.find_spec(package)
    assert spec is not None, f"{package} is a package of ours"
    assert spec.origin is not None, f"{package} has an __init__.py"
    return Path(spec.origin).parent / "weights"


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


def _perceptual(settings: LossConfig) -> Path:
    from model.weights import fetched
    from recon.perceptual import trunk_file

    return trunk_file(settings.perceptual, fetched(settings.perceptual_weights))
