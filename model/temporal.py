"""Tell which parameters mix frames, and freeze all others (3.1): `is_temporal`, `freeze_spatial`."""

from __future__ import annotations

from typing import Literal

from torch import nn

from recon.user_error import UserError

Family = Literal["pocket", "i2vgen-xl", "svd"]

_MARKS: dict[str, tuple[str, ...]] = {
    "pocket": ("temporal",),
    "i2vgen-xl": ("transformer_in.", ".temp_convs.", ".temp_attentions."),
    "svd": ("temporal_res_block", "temporal_transformer_blocks", "time_pos_embed", "time_mixer"),
}


def is_temporal(name: str, family: Family) -> bool:
    """Whether the parameter path `name` belongs to a layer that mixes frames.

    Raises:
        UserError: if `family` is unknown.
    """
    if family not in _MARKS:
        raise UserError(f"model family {family!r} is unknown; available: {', '.join(_MARKS)}")
    if family == "i2vgen-xl":
        first, *inner = _MARKS[family]
        return name.startswith(first) or any(mark in name for mark in inner)
    return any(mark in name for mark in _MARKS[family])


def freeze_spatial(model: nn.Module, family: Family) -> list[str]:
    """Let gradients reach the temporal parameters of `model` only, and return their names.

    Raises:
        UserError: if no parameter is temporal: the model is of another family.
    """
    trainable = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_temporal(name, family))
        if parameter.requires_grad:
            trainable.append(name)
    if not trainable:
        raise UserError(f"{type(model).__name__} has no temporal parameters of family {family!r}; "
                        f"check the checkpoint or choose one of {', '.join(_MARKS)}")  # fmt: skip
    return trainable
