"""Score pictures by CLIP, 100 x cosine of embeddings (Table 1; Radford et al. 2021): `Scorer`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eval.config import ClipConfig
from recon.user_error import UserError

POCKET_WEIGHTS = Path(__file__).parent / "weights" / "clip"
BATCH_SIZE = 32


class Scorer:
    """An image-text model that judges pictures.

    Args:
        model: an open_clip model (`encode_image`, `encode_text`).
        preprocess: a PIL picture to the model's input [3,S,S], by the model's own config.
        tokenizer: texts to token ids [B,L].
        name: which model this is; it belongs beside every score.
        revision: sha256 of the weights.
    """

    def __init__(
        self, model: Any, preprocess: Callable[[Any], Any], tokenizer: Callable[..., Tensor], name: str, revision: str
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # a sixth faster on CPUs where there are convolutions
        self.preprocess, self.tokenizer = preprocess, tokenizer
        self.name, self.revision = name, revision
        self.device = next(model.parameters()).device

    @classmethod
    def load(
        cls, config: ClipConfig | str | Path | tuple[str, str], device: torch.device | str | None = None
    ) -> Scorer:
        """Load "pocket", a folder, or an open_clip architecture with the name of its weights.

        Args:
            device: where it judges; without, on a GPU where there is one.

        Raises:
            ValueError: if the folder is incomplete or open_clip knows no such model.
            UserError: in one sentence, if the weights cannot be had.
        """
        if isinstance(config, tuple):
            config = ClipConfig(model=config[0], pretrained=config[1])
        config = config if isinstance(config, ClipConfig) else ClipConfig(model=str(config))
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if config.model == "pocket":
            return _from_folder(POCKET_WEIGHTS, "pocket", device)
        folder = Path(config.model).expanduser()
        return _from_folder(folder, folder.name, device) if folder.is_dir() else _from_open_clip(config, device)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Unit vectors float32 [B,D] of pictures uint8 [H,W,3|4] over white; sizes may differ."""
        from PIL import Image

        rows = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = [self.preprocess(Image.fromarray(_rgb(image))) for image in images[start : start + BATCH_SIZE]]
            pixels = torch.stack(batch).to(self.device, memory_format=torch.channels_last)
            rows.append(self.model.encode_image(pixels).float())
        return functional.normalize(torch.cat(rows), dim=-1).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors float32 [B,D]; a text that repeats is computed once."""
        unique = list(dict.fromkeys(texts))
        rows = []
        for start in range(0, len(unique), BATCH_SIZE):
            tokens = self.tokenizer(unique[start : start + BATCH_SIZE])
            rows.append(self.model.encode_text(tokens.to(self.device)).float())
        place = {text: index for index, text in enumerate(unique)}
        embedded = functional.normalize(torch.cat(rows), dim=-1).cpu()
        return embedded[[place[text] for text in texts]]

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Which texts [B] are longer than the model reads: their ends are left out of their embeddings."""
        length = self.tokenizer([""]).shape[1]
        tokens = self.tokenizer([*texts, ""], context_length=2 * length)
        return [bool((row[length:] != tokens[-1, length:]).any()) for row in tokens[:-1]]

    def text_similarity(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """100 x cosine [B] of each picture with its own prompt, in [-100, 100].

        Raises:
            ValueError: if there are no pictures, or not as many prompts.
        """
        _check(images)
        if len(prompts) != len(images):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts; give one each")
        return 100 * (self.embed_images(images) * self.embed_texts(prompts)).sum(-1).numpy()


def _check(images: Sequence[np.ndarray]) -> None:
    if not len(images):
        raise ValueError("there are no images to score; give at least one")


def _rgb(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise ValueError(f"an image is {image.dtype} {image.shape}; expected uint8 [H,W,3|4]")
    return np.ascontiguousarray(image[..., :3])


def _from_folder(folder: Path, name: str, device: torch.device) -> Scorer:
    if (folder / "open_clip_config.json").is_file():
        return _from_published(folder, name, device)
    from eval.small_clip import load_clip

    model, tokenizer, config = load_clip(folder)
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess: Any = image_transform_v2(PreprocessCfg(**config["preprocess_cfg"]), is_train=False)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Scorer(model.to(device), preprocess, tokenizer, name, f"sha256:{digest}")


def _from_published(folder: Path, name: str, device: torch.device) -> Scorer:
    """A folder as open_clip's authors publish them: open_clip_config.json and open_clip_model.safetensors."""
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    import open_clip

    file, address = folder / "open_clip_model.safetensors", f"local-dir:{folder}"
    if not file.is_file():
        raise ValueError(f"{folder} has no {file.name}; pickled weights are not read: give a folder of safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(address, device=device)
    tokenizer = open_clip.get_tokenizer(address)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Scorer(model.requires_grad_(False).eval(), cast(Any, preprocess), tokenizer, name, f"sha256:{digest}")


def _check_names(config: ClipConfig, available: list[str]) -> None:
    if config.model not in available:
        raise UserError(f"CLIP model {config.model!r} not found; give 'pocket', a folder, or an open_clip "
                        "architecture such as ViT-B-32-quickgelu")  # fmt: skip
    if _wants_quickgelu(config) and not _has_quickgelu(config.model):
        other = f"{config.model}-quickgelu"
        way = f"take {other}" if other in available else "give an architecture that does"
        raise UserError(f"the weights {config.pretrained!r} were trained with QuickGELU, which {config.model} does "
                        f"not use; {way}")  # fmt: skip
    if Path(config.pretrained).suffix in (".bin", ".ckpt", ".pkl", ".pt", ".pth"):
        raise UserError(f"{config.pretrained} is pickled; convert the weights to safetensors first")


def _wants_quickgelu(config: ClipConfig) -> bool:
    """Whether open_clip marks these weights as trained with QuickGELU; OpenAI's are, for any architecture."""
    import open_clip

    marked = open_clip.get_pretrained_cfg(config.model, config.pretrained).get("quick_gelu", False)
    return marked or config.pretrained == "openai"


def _has_quickgelu(model: str) -> bool:
    import open_clip

    return bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))


def _from_open_clip(config: ClipConfig, device: torch.device) -> Scorer:
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    import open_clip

    _check_names(config, open_clip.list_models())
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(config.model, config.pretrained, device=device)
    except Exception as error:
        raise UserError(
            f"the {config.pretrained!r} weights of CLIP {config.model} cannot be loaded ({type(error).__name__}: "
            f"{error}): run once where there is network and keep the hub cache, or give the path of a safetensors file"
        ) from error
    state = model.requires_grad_(False).eval().state_dict()
    digest = hashlib.sha256(b"".join(state[name].cpu().float().numpy().tobytes() for name in sorted(state)))
    stem = Path(config.pretrained).stem
    tokenizer = open_clip.get_tokenizer(config.model)
    return Scorer(model, cast(Any, preprocess), tokenizer, f"{config.model}-{stem}", f"sha256:{digest.hexdigest()}")
