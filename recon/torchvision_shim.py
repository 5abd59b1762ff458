"""Import torchvision where its compiled operators cannot load: `import_torchvision`.

PyPI's torchvision wheel links against CUDA torch. Beside a CPU-only torch its operators are
missing, and ``import torchvision`` stops at ``operator torchvision::nms does not exist``, and with
it every package that imports torchvision (lpips, timm, open_clip). Declaring the two schemas is
enough: the networks work, and a call of ``nms`` itself still raises torchvision's own error.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Import and return torchvision, declaring its missing operators only if the import needs them.

    Call this before importing a package that imports torchvision. Safe to call repeatedly.

    Raises:
        ImportError: if torchvision is not installed.
        RuntimeError: if the import fails for any reason other than the missing operators.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error) or _library is not None:
            raise
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(name + _SCHEMA)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")
