"""The losses of the fit (paper 3.3 and A.1): 10 LPIPS + 0.2 (1 - MS-SSIM) + 1 mask, as named terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from recon.ms_ssim import SsimTarget, ms_ssim
from recon.perceptual import PerceptualNetwork, load_perceptual


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Weights of the terms; a term of weight 0 is not computed."""

    lpips: float = 10.0
    """Weight of the perceptual distance (A.1: 10)."""
    ms_ssim: float = 0.2
    """Weight of 1 - MS-SSIM (A.1: 0.2)."""
    mask: float = 1.0
    """Weight of the mean squared error of the opacity image against the mask (A.1: 1)."""
    rgb: float = 0.0
    """Weight of the mean squared colour error; 0 in the paper, whose Table 2 finds it harmful."""
    perceptual: str = "pocket"
    """Network of the LPIPS term: "pocket" (embedded), "vgg", "alex", "squeeze", or a folder."""

    def __post_init__(self) -> None:
        negative = {name: weight for name, weight in self.weights().items() if not 0 <= weight < float("inf")}
        if negative:
            raise ValueError(f"loss weights must be finite and >= 0; got {negative}")
        if not any(self.weights().values()):
            raise ValueError("every loss weight is 0; give at least one of lpips, ms_ssim, mask, rgb a positive weight")

    def weights(self) -> dict[str, float]:
        """Name and weight of every term."""
        return {name: value for name, value in asdict(self).items() if name != "perceptual"}


class FitLoss:
    """Losses of rendered views against target views whose features and moments are computed once.

    Args:
        config: weights and network.
        rgb: targets [V,H,W,3] over white, in [0,1].
        alpha: target masks [V,H,W], in [0,1].
        perceptual: a network to share between losses; loaded from the config if none is given.
    """

    def __init__(self, config: LossConfig, rgb: Tensor, alpha: Tensor, perceptual: PerceptualNetwork | None = None):
        self.weights = {name: weight for name, weight in config.weights().items() if weight}
        self.rgb, self.alpha = _channels_first(rgb), alpha
        with torch.no_grad():
            if "ms_ssim" in self.weights:
                self.moments = SsimTarget.of(self.rgb)
            if "lpips" in self.weights:
                self.network = perceptual or load_perceptual(config.perceptual, rgb.device)
                self.features = self.network.features(self.rgb)

    def terms(self, rgb: Tensor, alpha: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Unweighted scalar terms, averaged over the views.

        Args:
            rgb: renders [B,H,W,3] over white.
            alpha: rendered opacity [B,H,W,1] in [0,1].
            views: [B] indices of the targets.
        """
        images = _channels_first(rgb)
        return {name: getattr(self, f"_{name}")(images, alpha, views) for name in self.weights}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of `terms`, a scalar."""
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()

    def _lpips(self, images: Tensor, alpha: Tensor, views: Tensor) -> Tensor:
        target = [layer[views] for layer in self.features]
        return self.network.distance(self.network.features(images), target).mean()

    def _ms_ssim(self, images: Tensor, alpha: Tensor, views: Tensor) -> Tensor:
        return 1 - ms_ssim(images, self.moments, views).mean()

    def _mask(self, images: Tensor, alpha: Tensor, views: Tensor) -> Tensor:
        return (alpha[..., 0] - self.alpha[views]).square().mean()

    def _rgb(self, images: Tensor, alpha: Tensor, views: Tensor) -> Tensor:
        return (images - self.rgb[views]).square().mean()


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).contiguous()
