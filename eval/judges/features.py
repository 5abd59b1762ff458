"""Embed views for distances between sets of pictures: `FeatureModel` of a DINOv2 or CLIP folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.judges.files import digest_of, files_of, from_transformers, model_folder, processor_from
from recon.user_error import UserError

BATCH_SIZE = 32
KINDS = {"dinov2": "the class token", "clip": "the projected picture"}
"""Model types of transformers, and what of them is taken."""


class FeatureModel:
    """Pictures to float32 [N,D], by a vision model of transformers and its own preprocessing.

    DINOv2 gives its class token after the last norm (Oquab et al. 2024), as in FD-DINOv2 (Stein et al. 2023); CLIP the
    projected picture, whose length is kept.
    """

    def __init__(self, name: str, kind: str, model: Any, processor: Any, files: Sequence[Path]) -> None:
        self.name, self.kind, self.model, self.processor, self.files = name, kind, model, processor, files
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str) -> FeatureModel:
        """Read a folder in float32.

        Raises:
            UserError: when files or parameters are missing, or it holds another kind of model.
        """
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from transformers import AutoConfig, AutoImageProcessor, CLIPModel, Dinov2Model

        folder = model_folder(path, "a DINOv2 or CLIP model")
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind not in KINDS:
            raise UserError(f"{folder} holds a {kind} model; features are taken of: {', '.join(KINDS)}")
        auto = Dinov2Model if kind == "dinov2" else CLIPModel
        model = from_transformers(auto, folder, dtype=torch.float32).to(device)
        return cls(folder.name, kind, model, processor_from(AutoImageProcessor, folder), files_of(folder))

    @property
    def revision(self) -> str:
        """sha256 of the folder's files, its preprocessing among them."""
        return digest_of(self.files)

    def statement(self) -> dict[str, Any]:
        """What is taken of which kind of model."""
        return {"kind": self.kind, "features": KINDS[self.kind]}

    @torch.inference_mode()
    def embed(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features [N,D] of pictures uint8 [H,W,3], of any sizes; [0,0] of none."""
        rows = [self._embed(pictures[start : start + BATCH_SIZE]) for start in range(0, len(pictures), BATCH_SIZE)]
        return torch.cat(rows).cpu().numpy() if rows else np.zeros((0, 0), np.float32)

    def _embed(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        from PIL import Image

        images = [Image.fromarray(picture) for picture in pictures]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.device)
        if self.kind == "dinov2":
            return self.model(pixel_values=pixels).pooler_output.float()
        return self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output).float()
