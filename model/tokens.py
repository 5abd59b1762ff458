"""Read tokenizers of T5 text encoders from a pipeline's folder: `read_tokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.weights import read_json
from recon.user_error import UserError


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in the subfolder `tokenizer`.

    Raises:
        UserError: if it is missing or cannot be read here.
    """
    from transformers import AutoTokenizer

    read_json(folder / "tokenizer" / "tokenizer_config.json")
    try:
        return AutoTokenizer.from_pretrained(folder / "tokenizer")
    except (ImportError, OSError, ValueError) as error:
        hint = "" if (folder / "tokenizer" / "tokenizer.json").is_file() else ", which needs the package sentencepiece"
        raise UserError(f"{folder / 'tokenizer'} cannot be read{hint}: {error}") from error
