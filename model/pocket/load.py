"""Load the networks of a pocket generator from its folder and its siblings: `load_networks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.conv_autoencoder import ConvAutoencoder
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.weights import license_of, revision_of
from recon.int8 import read_model

Autoencoder = PocketAutoencoder | ConvAutoencoder


def load_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder of a folder, of whichever class its config.json names; float32, frozen."""
    kinds = {kind.__name__: kind for kind in (PocketAutoencoder, ConvAutoencoder)}
    kind: Any = kinds[json.loads((folder / "config.json").read_text())["_class_name"]]
    return read_model(kind, folder).requires_grad_(False)


def load_networks(folder: Path) -> dict[str, Any]:
    """`unet` of `folder`, `text` and `autoencoder` beside it, `revision` and `license`; float32, for inference."""
    return {
        "unet": read_model(PocketUNet, folder),
        "text": PocketTextEncoder.load(folder.parent / "text_encoder").eval(),
        "autoencoder": load_autoencoder(folder.parent / "autoencoder"),
        "revision": revision_of(folder),
        "license": license_of(folder),
    }
