"""A pocket generator's folder and its siblings, as networks ready to sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.weights import license_of, revision_of


def load_networks(folder: Path) -> dict[str, Any]:
    """`unet` of `folder`, `text` and `autoencoder` beside it, `revision` and `license`; float32, for inference."""
    autoencoder = PocketAutoencoder.from_pretrained(folder.parent / "autoencoder", torch_dtype=torch.float32)
    return {
        "unet": PocketUNet.from_pretrained(folder, torch_dtype=torch.float32).eval(),
        "text": PocketTextEncoder.load(folder.parent / "text_encoder").eval(),
        "autoencoder": autoencoder.eval(),
        "revision": revision_of(folder),
        "license": license_of(folder),
    }
