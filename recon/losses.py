"""Compute the losses of the fit (3.3, A.1), 10 LPIPS + 0.2 (1 - MS-SSIM) + 1 mask, by term: `FitLoss`.

    L = sum_t weight_t * mean_v term_t(v),    v: views of one step

Renders and targets are rgb [B,H,W,3] over white and coverage [B,H,W] in [0,1]; each term is [B], one value a view,
>= 0: LPIPS, 1 - MS-SSIM, mask and rgb as mean squared errors, rgb_l1 as a mean absolute error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recon.loss_weights import LossConfig
from recon.ms_ssim import SsimTarget, ms_ssim
from recon.perceptual import LpipsNetwork, PerceptualNetwork, load_perceptual

if TYPE_CHECKING:
    from recon.mobile_loss import MobileLoss
    from recon.ssim_loss import SsimLoss


@dataclass
class Renders:
    """What is compared: rgb [B,H,W,3], opacities [B,H,W,1], the targets' indices [B], features or None."""

    rgb: Tensor
    alpha: Tensor
    views: Tensor
    features: list[Tensor] | None

    @cached_property
    def images(self) -> Tensor:
        """The colours [B,3,H,W]."""
        return _channels_first(self.rgb)


class FitLoss:
    """Losses of rendered views against target views whose features and moments are computed once.

    Args:
        config: weights and network.
        rgb: targets [V,H,W,3] over white, in [0,1].
        alpha: target masks [V,H,W], in [0,1].
        perceptual: a network to share between losses; loaded from the config if none is given.
        share: of the frames' pixels that the targets are, in (0, 1]; the terms are means over whole frames, of which
            the rest is right.
    """

    def __init__(
        self, config: LossConfig, rgb: Tensor, alpha: Tensor, perceptual: PerceptualNetwork | None = None,
        share: float = 1.0,
    ):  # fmt: skip
        weights = {name: weight for name, weight in config.weights().items() if weight}
        self.weights = {config.term(name): weight for name, weight in weights.items()}
        self._methods = {config.term(name): f"_{name}" for name in weights}
        self.rgb, self.alpha, self.share = rgb, alpha, share
        self.features: list[Tensor] = []
        self._similarity: SsimLoss | None = None
        self._distance: MobileLoss | None = None
        fast, images = config.fast and rgb.device.type == "cpu", _channels_first(rgb)
        with torch.no_grad():
            if config.ms_ssim:
                self.moments = SsimTarget.of(images)
                self._similarity = _fast_similarity(self.moments) if fast else None
            if config.lpips:
                self.network = perceptual or network_of(config, rgb.device)
                self._distance = _fast_distance(self.network) if fast else None
                if self._distance is None:
                    self.features = self.network.features(images)
                else:
                    self._units = self._distance.features(rgb)

    def terms(
        self, rgb: Tensor, alpha: Tensor, views: Tensor, features: list[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Unweighted terms [B], one value a view, by name; LPIPS as ``lpips_<network>``.

        Args:
            rgb: renders [B,H,W,3] over white.
            alpha: rendered opacity [B,H,W,1] in [0,1].
            views: [B] indices of the targets.
            features: of the renders, where `features_of` has found them already.
        """
        renders = Renders(rgb, alpha, views, features)
        return {name: self.share * getattr(self, method)(renders) for name, method in self._methods.items()}

    def features_of(self, rgb: Tensor) -> list[Tensor] | None:
        """The perceptual features [B,C,h,w] of renders [B,H,W,3], also of other targets; None without an LPIPS term."""
        return self.network.features(_channels_first(rgb)) if self.features else None

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of `terms`, [B]."""
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum(0)

    def _lpips(self, renders: Renders) -> Tensor:
        if self._distance is not None and renders.features is None:
            return self._distance.distance(renders.rgb, [self._units[view] for view in renders.views.tolist()])
        target = [layer[renders.views] for layer in self.features]
        found = self.network.features(renders.images) if renders.features is None else renders.features
        return self.network.distance(found, target)

    def _ms_ssim(self, renders: Renders) -> Tensor:
        if self._similarity is not None:
            return 1 - self._similarity(renders.rgb, renders.views.tolist())
        return 1 - ms_ssim(renders.images, self.moments, renders.views)

    def _mask(self, renders: Renders) -> Tensor:
        return (renders.alpha[..., 0] - self.alpha[renders.views]).square().mean((1, 2))

    def _rgb(self, renders: Renders) -> Tensor:
        return (renders.rgb - self.rgb[renders.views]).square().mean((1, 2, 3))

    def _rgb_l1(self, renders: Renders) -> Tensor:
        return (renders.rgb - self.rgb[renders.views]).abs().mean((1, 2, 3))


def _fast_similarity(targets: SsimTarget) -> SsimLoss | None:
    """The kernels that find MS-SSIM and its gradient together, where they can."""
    from recon.ssim_loss import SsimLoss

    return SsimLoss(targets) if targets.levels and SsimLoss.takes(*targets.images.shape[-2:]) else None


def _fast_distance(network: PerceptualNetwork) -> MobileLoss | None:
    """The kernels that find the distance and its gradient together, for a network that they know."""
    from recon.mobile_loss import MobileLoss

    return MobileLoss(network) if MobileLoss.takes(network) else None


def network_of(config: LossConfig, device: torch.device) -> PerceptualNetwork:
    """The network that the LPIPS term of `config` asks for, read once and shared, for nothing changes it."""
    return _network(config.perceptual, device, config.perceptual_weights, config.fast and device.type == "cpu")


@lru_cache(maxsize=2)
def _network(name: str, device: torch.device, weights: str, fast: bool) -> PerceptualNetwork:
    network = load_perceptual(name, device, weights)
    if fast and isinstance(network, LpipsNetwork):
        network.use_matrix_units()
    return network


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).contiguous()
