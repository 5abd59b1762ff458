"""Ask a vision-language model whether a view shows the prompt: `VqaJudge` (VQAScore, Lin et al. 2024).

The score is the probability in [0, 1] that the answer to TEMPLATE begins with "yes", over the whole vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.judges.files import digest_of, files_of, from_transformers, model_folder, processor_from
from eval.judges.judge import Subject, in_batches
from recon.user_error import UserError

TEMPLATE = 'Does this figure show "{}"? Please answer yes or no.'
"""VQAScore's question."""
ANSWERS = ("Yes", "yes", " Yes", " yes")
"""Ways to begin the answer; those that are one token count."""
BATCH_SIZE = 8
VIEWS = ("frames", "renders")


class VqaJudge:
    """A vision-language model of a folder that `AutoModelForImageTextToText` of transformers loads.

    Args:
        model: it. processor: its pictures and chat template. files: of the folder.
    """

    more_is_better = True

    def __init__(self, name: str, model: Any, processor: Any, files: Sequence[Path]) -> None:
        self.name, self.model, self.processor, self.files = name, model, processor, files
        self.answers = answers_of(processor.tokenizer, name)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str, weights: bool = True) -> VqaJudge:
        """Read a folder: float32 on a CPU, as its config says on a GPU.

        Args:
            weights: without, it can only be named: billions of numbers are not read for that.

        Raises:
            UserError: when files or parameters are missing, or it has no chat template.
        """
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = model_folder(path, "a vision-language model")
        processor = processor_from(AutoProcessor, folder)
        if not getattr(processor, "chat_template", None):
            raise UserError(f"{folder} has no chat template; put its chat_template.jinja beside config.json")
        dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
        model = from_transformers(AutoModelForImageTextToText, folder, dtype=dtype).to(device) if weights else None
        return cls(f"vqa_{folder.name}", model, processor, files_of(folder))

    @property
    def revision(self) -> str:
        """sha256 of the folder's files, its preprocessing and chat template among them."""
        return digest_of(self.files)

    def statement(self) -> dict[str, Any]:
        """The question, and the tokens that count as yes."""
        return {"question": TEMPLATE, "yes": self.answers}

    def columns(self) -> list[str]:
        """One for each kind of views."""
        return [self._column(what) for what in VIEWS]

    @torch.inference_mode()
    def views(self, subjects: Sequence[Subject]) -> list[dict[str, NDArray[np.float64]]]:
        """Probabilities [V] of each kind of views; none for an asset without prompt.

        Views of one asset are asked together and never views of two, so that no question is padded.
        """
        found = []
        for subject in subjects:
            text = self._question(subject.prompt) if subject.prompt else ""
            seen = subject.seen if subject.prompt else {}
            found.append({self._column(what): self._ask(text, views) for what, views in seen.items()})
        return found

    def _column(self, what: str) -> str:
        return f"{self.name}_{what}"

    def _question(self, prompt: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": TEMPLATE.format(prompt)}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True)

    def _ask(self, text: str, views: NDArray[np.uint8]) -> NDArray[np.float64]:
        return in_batches([(view,) for view in views], lambda stack: self._probability(text, stack), BATCH_SIZE)

    def _probability(self, text: str, pictures: NDArray[np.uint8]) -> Tensor:
        """[B] of pictures uint8 [B,H,W,3]."""
        from PIL import Image

        images = [[Image.fromarray(picture)] for picture in pictures]
        inputs = self.processor(text=[text] * len(images), images=images, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        last = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        logits = self.model(**inputs, **({"logits_to_keep": 1} if last else {})).logits[:, -1]
        return logits.float().softmax(-1)[:, self.answers].sum(-1)


def answers_of(tokenizer: Any, name: str) -> list[int]:
    """The tokens that begin the answer yes.

    Raises:
        UserError: when none of ANSWERS is one token.
    """
    tokens = [tokenizer(text, add_special_tokens=False).input_ids for text in ANSWERS]
    found = sorted({ids[0] for ids in tokens if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
    if not found:
        raise UserError(f"the tokenizer of {name} has no single token for yes; take another vision-language model")
    return found
