"""What a user can set about evaluation. Imports nothing heavy, so that a command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True, slots=True)
class ClipConfig:
    """The image-text model that judges."""

    model: str = "pocket"
    """'pocket' (embedded), a folder, or the name of an open_clip architecture such as ViT-B-32-quickgelu."""
    pretrained: str = "openai"
    """Which weights of a named architecture."""


Up = Literal["y", "z", "y-down", "z-down"]
"""Which way is up in a 3D file: along an axis, or against it."""
