"""Cut the object out of frames without alpha: `Masker`, by the setting `views.masks`, loaded when first wanted."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from recon.user_error import UserError

ISNET_FILE = "isnet-general-use.onnx"


def onnx_file(name: str) -> Path:
    """The file of an ONNX masker.

    Args:
        name: "u2netp", "isnet" or a path.

    Raises:
        UserError: if it is not there; the sentence says where it is looked for and how to get it.
    """
    from model.weights import fetched
    from recon.onnx_masker import U2NETP

    name = fetched(name)
    if name == "u2netp":
        return U2NETP / "model.onnx"
    file = Path(os.environ.get("U2NET_HOME") or Path.home() / ".u2net", ISNET_FILE) if name == "isnet" else Path(name)
    if not file.is_file():
        raise UserError(
            f"views.masks is {name!r} and {file} is not there: im3d weights pull isnet --to DIR, and give --weights "
            "DIR; or name another .onnx file, or take --views.masks u2netp, which is embedded"
        )
    return file


class Masker:
    """The masker of `views.masks`, loaded when frames without alpha first come by.

    Args:
        name: "pocket", "u2netp", "isnet" or an .onnx file.
        device: "cpu" or "cuda"; ONNX networks take CUDA where onnxruntime-gpu is installed.
        threads: of the processor, >= 1.
    """

    def __init__(self, name: str, device: str = "cpu", threads: int = 1) -> None:
        self.name, self.device, self.threads = name, device, threads
        self._masker: Any = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Coverage uint8 [V,H,W] of frames uint8 [V,H,W,3]."""
        if self._masker is None:
            self._masker = self._load()
        return self._masker(frames)

    def _load(self) -> Any:
        if self.name == "pocket":
            from recon.masks import PocketMasker

            return PocketMasker.load()
        from recon.onnx_masker import OnnxMasker, offered_device

        device = offered_device(self.device)
        if device != self.device:
            logging.getLogger("factory").warning(
                "masks_on_cpu: onnxruntime offers no CUDA here, or its libraries do not load, so masks by %s take the "
                "CPU of an actor that holds a GPU: pip install 'im3d-factory[paper-gpu]' in the place of onnxruntime",
                self.name,
            )
        return OnnxMasker(onnx_file(self.name), device, self.threads)
