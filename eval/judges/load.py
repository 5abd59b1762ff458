"""Make judges of what a user names: `load_judges`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eval.config import JudgeConfig
from eval.judges.judge import Judge


def load_judges(configs: Sequence[JudgeConfig], device: torch.device | str | None = None) -> list[Judge]:
    """The judges, frozen.

    Args:
        device: where they judge; without, on a GPU where there is one.

    Raises:
        ValueError: when files of one are missing, or two have one name.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = [_load(config, place) for config in configs]
    names = [judge.name for judge in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two judges are called {twice[0]}; name one, or rename a folder")
    return found


def _load(config: JudgeConfig, device: torch.device) -> Judge:
    if config.kind == "vqa":
        from eval.judges.vqa import VqaJudge

        return VqaJudge.load(config.weights, device)
    from eval.judges.paired import dists_judge, lpips_judge

    if config.kind == "dists":
        return dists_judge(config.weights, device)
    return lpips_judge(config.kind.removeprefix("lpips-"), config.weights, device)
