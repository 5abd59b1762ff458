"""Compare pictures by structure and texture of VGG16's features: `Dists` (Ding et al. 2020).

With features f_q of q = 0 (the picture itself) to 5, mu their means, s their variances and covariance over places,

    DISTS(x, y) = 1 - sum_qc alpha_qc (2 mu_x mu_y + e) / (mu_x^2 + mu_y^2 + e) + beta_qc (2 s_xy + e) / (s_x + s_y + e)

The published alpha and beta lie in this repository (`weights/dists`); the trunk is that of LPIPS "vgg".
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from recon.user_error import UserError

HEADS = Path(__file__).parents[1] / "weights" / "dists" / "model.safetensors"
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""torchvision's numbers of VGG16's convolutions, by stage."""
CHANNELS = (3, 64, 128, 256, 512, 512)
EPSILON = 1e-6


class Dists(nn.Module):
    """The distance [B] of two float32 [B,3,H,W] in [0, 1].

    Args:
        trunk: VGG16's convolutions as torchvision names them, ``features.<n>.weight`` and ``.bias``.
        heads: ``alpha`` and ``beta`` [1475], over the channels of the picture and of five stages.
    """

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, trunk: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        wanted = [f"features.{n}.{part}" for stage in STAGES for n in stage for part in ("weight", "bias")]
        if missing := [name for name in wanted if name not in trunk]:
            raise UserError(f"these are no ImageNet weights of VGG16: {missing[0]} is missing")
        for name in wanted:
            self.register_buffer(name.replace(".", "_"), trunk[name].float())
        total = heads["alpha"].sum() + heads["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, heads[name].flatten() / total)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        window = torch.tensor([0.5, 1.0, 0.5])  # Hann
        self.register_buffer("window", torch.outer(window, window) / 4)

    @classmethod
    def load(cls, path: Path) -> Dists:
        """From torchvision's VGG16 as .pth or .safetensors, or `recon.lpips_export`'s file; ValueError for others."""
        safe = path.suffix == ".safetensors"
        found = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        return cls({name.removeprefix("vgg."): value for name, value in found.items()}, load_file(HEADS)).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """The images and the last features of each stage [B,C,h,w]."""
        found, x = [images], (images - self.mean) / self.std
        for number, stage in enumerate(STAGES):
            x = self._pool(x) if number else x
            for layer in stage:
                x = F.relu(F.conv2d(x, self._of(layer, "weight"), self._of(layer, "bias"), padding=1))
            found.append(x)
        return found

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """The distance [B]."""
        terms: list[Tensor] = []
        pieces = zip(self.alpha.split(CHANNELS), self.beta.split(CHANNELS))
        for x, y, (alpha, beta) in zip(self.features(ours), self.features(theirs), pieces, strict=True):
            mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
            off_x, off_y = x - mean_x[..., None, None], y - mean_y[..., None, None]
            var_x, var_y = off_x.square().mean((2, 3)), off_y.square().mean((2, 3))
            both = (off_x * off_y).mean((2, 3))  # the package's E[xy] - E[x]E[y] cancels its digits in flat pictures
            texture = (2 * mean_x * mean_y + EPSILON) / (mean_x.square() + mean_y.square() + EPSILON)
            structure = (2 * both + EPSILON) / (var_x + var_y + EPSILON)
            terms.append((alpha * texture + beta * structure).sum(1))
        return 1 - torch.stack(terms).sum(0)

    def _pool(self, x: Tensor) -> Tensor:
        """Every other root of the weighted mean of squares (l2 pooling)."""
        kernel = self.window.expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()

    def _of(self, layer: int, part: str) -> Tensor:
        return getattr(self, f"features_{layer}_{part}")
