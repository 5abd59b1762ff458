"""Make judges of what a user names: `load_judges`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eval.config import JudgeConfig
from eval.judges.judge import Judge
from recon.user_error import UserError


def load_judges(
    configs: Sequence[JudgeConfig], device: torch.device | str | None = None, to_name: bool = False
) -> list[Judge]:
    """The judges, frozen.

    Args:
        to_name: for their names, columns and revisions alone; vision-language models come without weights.
        device: where they judge; without, on a GPU where there is one.

    Raises:
        UserError: when files of one are missing, or two have one name.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = [_load(config, place, to_name) for config in configs]
    names = [judge.name for judge in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two judges are called {twice[0]}; name one, or rename a folder")
    return found


def _load(config: JudgeConfig, device: torch.device, to_name: bool) -> Judge:
    if config.kind == "vqa":
        from eval.judges.vqa import VqaJudge

        return VqaJudge.load(config.weights, device, weights=not to_name)
    from eval.judges.paired import dists_judge, lpips_judge

    if config.kind == "dists":
        return dists_judge(config.weights, device)
    return lpips_judge(config.kind.removeprefix("lpips-"), config.weights, device)
