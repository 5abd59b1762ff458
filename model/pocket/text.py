"""Encode captions by byte-level BPE and a small CLIP text transformer: `PocketTextEncoder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from recon.int8 import read_state
from recon.torchvision_shim import import_torchvision

import_torchvision()
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

MAX_TOKENS = 16
TEXT_DIM = 192


def train_tokenizer(captions: Sequence[str], vocab_size: int = 1024) -> Tokenizer:
    """A byte-level BPE tokenizer: every string has tokens, words of the captions have few."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<pad>", "<start>", "<end>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((caption.lower() for caption in captions), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>", length=MAX_TOKENS)
    return tokenizer


class PocketTextEncoder(nn.Module):
    """Prompts to token states [B,16,192] and pooled states [B,192]; the empty prompt is "no condition"."""

    def __init__(self, tokenizer: Tokenizer, num_layers: int = 3) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.transformer = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=tokenizer.get_vocab_size(), hidden_size=TEXT_DIM, intermediate_size=4 * TEXT_DIM,
                num_hidden_layers=num_layers, num_attention_heads=6, max_position_embeddings=MAX_TOKENS,
                pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip

    def forward(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token states [B,16,192] and pooled states [B,192] of B prompts, case ignored, cut off after 16 tokens."""
        encodings = self.tokenizer.encode_batch([prompt.lower() for prompt in prompts])
        ids = torch.tensor([encoding.ids for encoding in encodings], device=self.transformer.device)
        output = self.transformer(input_ids=ids, attention_mask=(ids != 0).long())
        return output.last_hidden_state, output.pooler_output

    def save(self, folder: Path) -> None:
        """Write config, float16 weights and tokenizer to `folder`."""
        half = CLIPTextModel(self.transformer.config)
        half.load_state_dict(self.transformer.state_dict())
        half.half().save_pretrained(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    @classmethod
    def load(cls, folder: Path) -> PocketTextEncoder:
        """Read what `save` wrote, or the same in 8 bits, as float32."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        encoder.transformer = CLIPTextModel.from_pretrained(
            None, config=CLIPTextConfig.from_pretrained(folder), state_dict=read_state(folder), dtype=torch.float32
        )
        return encoder
