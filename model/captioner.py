"""Caption assets that have no caption, by an image-to-text model of transformers (BLIP and its like): `Captioner`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.user_error import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(kw_only=True, slots=True)
class CaptionerConfig:
    """Who writes captions, and for what."""

    model: str | None = None
    """Folder of an image-to-text model of transformers, as Salesforce/blip-image-captioning-base; None: the table's
    captions only."""
    replace: bool = False
    """Caption every asset, not only those whose table has no caption."""
    max_tokens: int = 20
    """Tokens of a caption at most."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"captioner.max_tokens is {self.max_tokens}; it must be at least 1")
        if self.replace and self.model is None:
            raise UserError("captioner.replace needs a captioner.model that writes the captions")


class Captioner:
    """Pictures uint8 [S,S,3] to captions, greedily, on the device "cpu" or "cuda"."""

    def __init__(self, config: CaptionerConfig, device: str = "cpu") -> None:
        import torch

        from model.weights import revision_of
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = Path(config.model or "").expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"captioner.model {config.model} is no folder of a transformers model (no config.json); "
                            "give the path of a downloaded one")  # fmt: skip
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0][:160]
            raise UserError(f"captioner.model {folder} is no image-to-text model: {reason}") from error
        self.device = torch.device(device)
        self.model, self.max_tokens = model.eval().to(self.device), config.max_tokens
        self.name, self.revision = folder.name, revision_of(folder)

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
        """One caption for each picture."""
        import torch
        from PIL import Image

        inputs = self.processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False, num_beams=1)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
