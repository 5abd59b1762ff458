"""Take a run's networks from a folder of pulled ones: `assigned` says which, `resolved` gives the settings for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from eval.config import ClipConfig
from factory.config.settings import FactoryConfig
from factory.weights.catalogue import CATALOGUE
from model.config import VideoConfig

Settings = TypeVar("Settings")
_BESIDE = "clip.beside."
HOW = "im3d weights pull {name} --to {folder}"


def assigned(config: FactoryConfig) -> dict[str, str]:
    """By setting, as "image.model", the network of the catalogue that it names."""
    found = {
        "image.model": _named("image", config.image.model),
        "video.model": _named("video", config.video.model),
        "video.lora": _named("lora", config.video.lora),
        "views.masks": _named("masks", config.views.masks),
        "fit.loss.perceptual_weights": _perceptual(config),
        "clip.model": judge(config.clip.model, config.clip.pretrained),
    }
    found |= {
        f"{_BESIDE}{place}": judge(model, config.clip.pretrained) for place, model in enumerate(config.clip.beside)
    }
    return {setting: name for setting, name in found.items() if name}


def resolved(config: FactoryConfig) -> FactoryConfig:
    """The settings with each network of the catalogue by its place in the folder `weights`; as they are without one.

    Where networks lie changes no result, so that fingerprints and what a run remembers are of the settings before.
    """
    if not config.weights:
        return config
    root = config.weights.rstrip("/")
    beside = tuple(resolved_judge(root, one).model for one in config.clip.each()[1:])
    for setting, name in assigned(config).items():
        if not setting.startswith(_BESIDE):
            config = _replaced(config, setting.split("."), _place(root, name))
    config = _replaced(config, ["clip", "beside"], beside)
    if "/" not in config.views.estimator and config.views.estimator != "pocket":
        config = _replaced(config, ["views", "estimator"], f"{root}/{config.views.estimator}")
    return config


def resolved_judge(weights: str | None, clip: ClipConfig) -> ClipConfig:
    """A judge by its place in the folder `weights`, if there is such a folder and it is of the catalogue."""
    name = judge(clip.model, clip.pretrained)
    return dataclasses.replace(clip, model=f"{weights.rstrip('/')}/{name}") if weights and name else clip


def resolved_video(weights: str | None, video: VideoConfig) -> VideoConfig:
    """The same of a video model and its LoRA."""
    if not weights:
        return video
    return resolved(FactoryConfig(video=video, weights=weights)).video


def local_judge(clip: ClipConfig) -> ClipConfig:
    """The judge with its folder on this machine, where an address names it; for workers."""
    from model.weights import fetched

    return dataclasses.replace(clip, model=fetched(clip.model))


def judge(model: str, pretrained: str) -> str | None:
    """The catalogue's name of an open_clip architecture with its weights."""
    name = f"{model}-{pretrained}"
    return name if name in CATALOGUE and CATALOGUE[name].use == "judge" else None


def known(address: str) -> str | None:
    """The catalogue's name of what lies at a hub id, an address, or in a pulled folder; None if it has none."""
    if address in CATALOGUE:
        return address
    names = [name for name, entry in CATALOGUE.items() if entry.source == address]
    last = address.rstrip("/").rpartition("/")[2]
    return names[0] if len(names) == 1 else last if last in CATALOGUE else next(_holders(address), None)


def _holders(address: str) -> Iterator[str]:
    """Networks whose one file an address ends in."""
    for name, entry in CATALOGUE.items():
        if any(address.endswith(f"/{name}/{file}") for file in entry.files):
            yield name


def _named(use: str, value: str | None) -> str | None:
    """The network of one use that a setting's value names: by its name, its hub id, or "hub-id:file"."""
    for name, entry in CATALOGUE.items():
        if entry.use == use and value in (name, entry.source, *(f"{entry.source}:{file}" for file in entry.files)):
            return name
    return None


def _perceptual(config: FactoryConfig) -> str | None:
    wanted = config.fit.loss.lpips and config.fit.loss.perceptual in ("vgg", "alex")
    return "lpips" if wanted and not config.fit.loss.perceptual_weights else None


def _place(root: str, name: str) -> str:
    """What a setting is for a network in the folder: its folder, or its one file."""
    entry = CATALOGUE[name]
    return f"{root}/{name}/{entry.files[0]}" if entry.use in ("lora", "masks") else f"{root}/{name}"


def _replaced(settings: Settings, path: list[str], value: Any) -> Settings:
    first, *rest = path
    inner = _replaced(getattr(settings, first), rest, value) if rest else value
    return dataclasses.replace(settings, **{first: inner})  # type: ignore[type-var]
