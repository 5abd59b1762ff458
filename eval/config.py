"""Set which models judge: `ClipConfig`, `JudgeConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class ClipConfig:
    """The image-text model that judges."""

    model: str = "pocket"
    """'pocket' (embedded), a folder, or the name of an open_clip architecture such as ViT-B-32-quickgelu."""
    pretrained: str = "openai"
    """Which weights of a named architecture."""
    beside: tuple[str, ...] = ()
    """Further models, by the same weights' name, whose scores stand beside in a run's own columns."""

    def each(self) -> tuple[ClipConfig, ...]:
        """Every model by itself, the first one first."""
        return tuple(ClipConfig(model=model, pretrained=self.pretrained) for model in (self.model, *self.beside))


Up = Literal["y", "z", "y-down", "z-down"]
"""Which way is up in a 3D file: along an axis, or against it."""


JudgeKind = Literal["lpips-vgg", "lpips-alex", "dists", "vqa"]
JUDGES: dict[JudgeKind, str] = {
    "lpips-vgg": "file",
    "lpips-alex": "file",
    "dists": "file",
    "vqa": "folder",
}
"""Judges beside CLIP, and whether their weights are a file or a folder."""


@dataclass(kw_only=True, slots=True, frozen=True)
class JudgeConfig:
    """A judge beside CLIP."""

    kind: JudgeKind
    """Which one."""
    weights: str
    """Its file or folder."""

    @classmethod
    def parse(cls, text: str) -> JudgeConfig:
        """Of "kind=path".

        Raises:
            UserError: for another form or an unknown kind.
        """
        kind, _, weights = text.partition("=")
        if kind not in JUDGES or not weights:
            known = " ".join(f"{name}={what.upper()}" for name, what in JUDGES.items())
            raise UserError(f"judge {text!r} is none; available: {known}")
        return cls(kind=kind, weights=weights)
