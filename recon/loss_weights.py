"""Weigh the terms of the fit's loss: `LossConfig`, with the paper's weights (A.1). Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
    """Weight of the mean squared colour error (L2); 0 in the paper, whose Table 2 finds it harmful."""
    rgb_l1: float = 0.0
    """Weight of the mean absolute colour error (L1)."""
    perceptual: str = "pocket"
    """Network of the LPIPS term: "pocket" (embedded), "vgg", "alex", "squeeze", or a folder."""
    perceptual_weights: str = ""
    """File, or folder with the file, of the ImageNet weights of "vgg", "alex" or "squeeze": torchvision's (.pth or
    .safetensors), or what `python -m recon.lpips_export` writes; empty looks into torch's own cache. Nothing is ever
    downloaded."""
    fast: bool = True
    """On a CPU, compute "pocket" and MS-SSIM by kernels that find value and gradient together, equal to rounding, and
    the convolutions of "vgg", "alex" and "squeeze" in bfloat16 where the processor has matrix units for it."""

    def __post_init__(self) -> None:
        negative = {name: weight for name, weight in self.weights().items() if not 0 <= weight < float("inf")}
        if negative:
            raise ValueError(f"loss weights must be finite and >= 0; got {negative}")
        if not any(self.weights().values()):
            raise ValueError(
                f"every loss weight is 0; give at least one of {', '.join(self.weights())} a positive weight"
            )

    def weights(self) -> dict[str, float]:
        """Name and weight of every term."""
        others = ("perceptual", "perceptual_weights", "fast")
        return {name: value for name, value in asdict(self).items() if name not in others}

    def term(self, name: str) -> str:
        """What the term of a weight is called in records: LPIPS says its network, for networks do not compare."""
        return f"lpips_{self.perceptual.rstrip('/').rsplit('/', 1)[-1]}" if name == "lpips" else name
