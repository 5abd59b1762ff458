"""Train the pocket text encoder to agree with a sentence encoder: `TextDistillation`.

Notation: B phrases of T tokens; teacher embeddings [B,384] of norm 1; student states [B,T,192], pooled [B,192].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import Share, TrainConfig
from model.parallel import World
from model.pocket.sentence_teacher import TEACHER_DIM, Phrases
from model.pocket.text import TEXT_DIM, PocketTextEncoder
from model.training import autocast, generator_of

TEMPERATURE = 0.05
"""Of the similarities between the phrases of a batch."""


@dataclass(kw_only=True, slots=True)
class PhraseBatch:
    """Which phrases a step takes: int64 [B]."""

    rows: Tensor

    def to(self, device: torch.device) -> PhraseBatch:
        """The same; phrases are looked up on the CPU."""
        return self


class TextDistillation(nn.Module):
    """How far a text encoder is from the teacher: pooled states, means of token states, similarities in a batch.

    Both kinds of states are compared through a linear map that is trained along and thrown away.
    """

    def __init__(self, student: PocketTextEncoder, config: TrainConfig) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.pooled = nn.Linear(TEXT_DIM, TEACHER_DIM)
        self.tokens = nn.Linear(TEXT_DIM, TEACHER_DIM)
        student.transformer.config._attn_implementation = "eager"  # in training torch's own is slower on a CPU
        self.phrases: Phrases | None = None

    def feed(self, share: Share, world: World, step: int) -> Iterator[PhraseBatch]:
        """Micro-batches of phrases from a step on."""
        assert self.phrases is not None
        while True:
            for part in range(share.rounds):
                generator = generator_of(self.config.seed, 2, step, world.rank, part)
                yield PhraseBatch(rows=self.phrases.rows(share.micro, generator))
            step += 1

    def forward(self, batch: PhraseBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of phrases, and the mean cosine of pooled embeddings with the teacher's."""
        assert self.phrases is not None
        device = self.pooled.weight.device
        wanted = self.phrases.embeddings[batch.rows].float().to(device)
        texts = [self.phrases.texts[row] for row in batch.rows.tolist()]
        ids = torch.tensor([encoding.ids for encoding in self.student.tokenizer.encode_batch(texts)], device=device)
        within = (ids != 0).long()
        ids, within = (values[:, : int(within.sum(1).max())] for values in (ids, within))
        teacher = (wanted @ wanted.T / TEMPERATURE).log_softmax(-1)
        with autocast(device, self.config.precision):
            output = self.student.transformer(input_ids=ids, attention_mask=within)
            states, pooled = output.last_hidden_state, output.pooler_output
            mean = (states * within[..., None]).sum(1) / within.sum(1, keepdim=True)
            guesses = [
                functional.normalize(guess.float(), dim=-1) for guess in (self.pooled(pooled), self.tokens(mean))
            ]
        loss, cosines = wanted.new_zeros(()), []
        for guess in (functional.normalize(guess.float(), dim=-1) for guess in guesses):
            cosines.append((guess * wanted).sum(-1).mean())
            likeness = (guess @ guess.T / TEMPERATURE).log_softmax(-1)
            agreement = functional.kl_div(likeness, teacher, log_target=True, reduction="batchmean")
            loss = loss + 4 * (1 - cosines[-1]) + agreement
        return loss, {"cosine": cosines[0].item()}
