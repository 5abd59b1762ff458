"""Tell how far re-renders are from what they should equal: `PairedJudge` by LPIPS or DISTS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.judges.files import digest_of
from eval.judges.judge import Subject, by_asset, in_batches

PAIRS = ("frames", "truth")


class PairedJudge:
    """A distance, >= 0 and 0 of equal pictures, between a re-render and a picture from the same camera.

    Args:
        distance: float32 [B,3,H,W] in [0, 1], twice, to [B].
        files: of its weights. least: the smallest side in pixels that it can see.
    """

    more_is_better = False

    def __init__(
        self,
        name: str,
        distance: Callable[[Tensor, Tensor], Tensor],
        files: Sequence[Path],
        least: int,
        device: torch.device | str,
    ) -> None:
        self.name, self.distance, self.files, self.least, self.device = name, distance, files, least, device

    @property
    def revision(self) -> str:
        """sha256 of the weights."""
        return digest_of(self.files)

    def statement(self) -> dict[str, Any]:
        """Pictures are judged as they are, without resizing."""
        return {"resized": False}

    def columns(self) -> list[str]:
        """One for each kind of pairs."""
        return [self._column(kind) for kind in PAIRS]

    @torch.inference_mode()
    def views(self, subjects: Sequence[Subject]) -> list[dict[str, NDArray[np.float64]]]:
        """The distances [V] of each kind of pairs; ValueError for pictures of unlike or too small sizes."""
        for subject in subjects:
            for kind, pair in subject.pairs.items():
                self._check(kind, *pair)
        flat = [pair for subject in subjects for pictures in subject.pairs.values() for pair in zip(*pictures)]
        lengths = [{kind: len(pictures[0]) for kind, pictures in subject.pairs.items()} for subject in subjects]
        return by_asset(in_batches(flat, self._judge), lengths, self._column)

    def _column(self, kind: str) -> str:
        return f"{self.name}_renders_{kind}"

    def _judge(self, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> Tensor:
        return self.distance(self._tensor(ours), self._tensor(theirs))

    def _tensor(self, pictures: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _check(self, kind: str, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
        if ours.shape != theirs.shape:
            raise ValueError(
                f"{self.name} cannot compare {len(ours)} re-renders of {ours.shape[2]}x{ours.shape[1]} with "
                f"{len(theirs)} {kind} of {theirs.shape[2]}x{theirs.shape[1]}; see --num-views and --size"
            )
        if min(ours.shape[1:3]) < self.least:
            raise ValueError(f"{self.name} cannot judge pictures of {min(ours.shape[1:3])} pixels; "
                             f"render at {self.least} or more (--size)")  # fmt: skip


def lpips_judge(network: str, weights: str | Path, device: torch.device | str) -> PairedJudge:
    """LPIPS (Zhang et al. 2018) by the published heads on "vgg" or "alex".

    Args:
        weights: the network's file, torchvision's or that of `recon.lpips_export`.

    Raises:
        ValueError: when the file is missing or another network's.
    """
    from eval.judges.files import named_file
    from recon.perceptual import load_perceptual

    path = named_file(weights, f"the weights of LPIPS {network!r}, torchvision's or those of recon.lpips_export,")
    model = load_perceptual(network, device, weights=path)

    def distance(ours: Tensor, theirs: Tensor) -> Tensor:
        return model.distance(model.features(ours), model.features(theirs))

    return PairedJudge(f"lpips_{network}", distance, [path], {"vgg": 16, "alex": 31}[network], device)


def dists_judge(weights: str | Path, device: torch.device | str) -> PairedJudge:
    """DISTS (Ding et al. 2020) on the VGG16 of `weights`.

    Raises:
        ValueError: when the file is missing or holds no VGG16.
    """
    from eval.judges.dists import HEADS, Dists
    from eval.judges.files import named_file

    path = named_file(weights, "the ImageNet weights of VGG16, as for LPIPS 'vgg'")
    return PairedJudge("dists", Dists.load(path).to(device), [path, HEADS], 16, device)
