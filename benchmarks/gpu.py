"""Measure a GPU: parity of both engines, fits alone and together, generators at full size, training, a full memory.

    python -m benchmarks.gpu [--perceptual vgg --perceptual-weights lpips.safetensors] [--tiny]

Prints a table and one line of JSON, and writes `benchmarks/results/gpu/<card>.md`. ``--tiny`` runs small sizes on the
CPU in seconds; what needs a GPU is then listed as skipped, and nothing is written.
"""

from __future__ import annotations

import gc
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import adapters, training
from recon.cameras import Cameras, OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig
from recon.fit_batch import FitTarget, fit_batch
from recon.gaussians import Gaussians, init_ball
from recon.loss_weights import LossConfig
from recon.memory import PeakMemory
from recon.rasterize import rasterize
from recon.refine import views_of

IMAGE_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-3
"""Largest difference of a pixel, and of a gradient as a share of its norm, between the engines."""


@dataclass(kw_only=True)
class Options:
    """Measure a GPU."""

    tiny: bool = False
    """Small sizes on the CPU."""
    iterations: int = 1200
    """Of every fit."""
    size: int = 512
    """Pixels of a frame."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Assets in one optimisation."""
    perceptual: str = "pocket"
    """As `fit.loss.perceptual`."""
    perceptual_weights: str = ""
    """As `fit.loss.perceptual_weights`."""
    minutes: float = 7.0
    """After so many no other generator is begun; the rest of a begun one and the start take two more at most."""
    results: Path = Path("benchmarks/results/gpu")
    """Where the page of a card is written."""

    def __post_init__(self) -> None:
        if self.tiny:
            self.iterations, self.size, self.batches = 12, 32, (1, 2)
        elif not torch.cuda.is_available():
            raise SystemExit("torch finds no GPU here; give --tiny to try the command on the CPU")

    @property
    def device(self) -> str:
        """Where the fits run."""
        return "cpu" if self.tiny else "cuda"


def thing(seed: int, count: int = 3000) -> Gaussians:
    """An object of coloured Gaussians in the unit sphere."""
    generator = torch.Generator().manual_seed(seed)
    made = init_ball(count, radius=0.7, opacity=0.8, generator=generator)
    made.sh0 += torch.randn(made.sh0.shape, generator=generator)
    return made


def rendered(gaussians: Gaussians, cameras: Cameras, device: str) -> list[torch.Tensor]:
    """A picture, an opacity image and the gradients of their sum of squares, on the CPU."""
    values = [gaussians.means, gaussians.quats, gaussians.standard_deviations, gaussians.alphas, gaussians.sh]
    leaves = [value.detach().to(device).requires_grad_() for value in values]
    means, quats, scales, opacities, colors = leaves
    viewmats, Ks = cameras.viewmats.to(device), cameras.Ks.to(device)
    rgb, alpha, _ = rasterize(
        means, quats, scales, opacities, colors, viewmats, Ks, cameras.size, cameras.size, sh_degree=0
    )
    (rgb.square().sum() + alpha.square().sum()).backward()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return [x.detach().cpu() for x in (rgb, alpha, *gradients)]


def parity(options: Options) -> list[dict[str, Any]]:
    """The largest differences between gsplat's and the CPU engine's pictures and gradients."""
    if options.tiny:
        return [{"part": "parity of the engines", "skipped": "needs a GPU"}]
    cameras = turntable(0.3, 256, OrbitConfig(num_views=4))
    pairs = list(zip(*(rendered(thing(0), cameras, device) for device in ("cuda", "cpu")), strict=True))
    image = max(float((a - b).abs().max()) for a, b in pairs[:2])
    gradient = max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs[2:] if b.any())
    return [
        {"part": "parity, images", "difference": image, "holds": image <= IMAGE_LIMIT},
        {"part": "parity, gradients", "difference": gradient, "holds": gradient <= GRADIENT_LIMIT},
    ]


def targets(options: Options, count: int) -> list[FitTarget]:
    """Turntables of `count` objects."""
    cameras = turntable(0.3, options.size, OrbitConfig(num_views=16))
    frames = [views_of(thing(seed), cameras, 4) for seed in range(count)]
    return [FitTarget(frames=one, cameras=cameras, seed=seed) for seed, one in enumerate(frames)]


def settings(options: Options) -> FitConfig:
    """A fit as the line makes it."""
    loss = LossConfig(perceptual=options.perceptual, perceptual_weights=options.perceptual_weights)
    config = FitConfig(iterations=options.iterations, device="cpu" if options.tiny else "cuda", loss=loss)
    return replace(config, num_points=200, densify=DensifyConfig(every=5)) if options.tiny else config


def fits(options: Options) -> list[dict[str, Any]]:
    """Seconds, assets an hour and peak memory of fits alone and together."""
    given, config, rows = targets(options, max(options.batches)), settings(options), []
    fit_batch(given[:1], replace(config, iterations=2))  # kernels are compiled
    for count in options.batches:
        started = time.perf_counter()
        with PeakMemory(torch.device(options.device)) as memory:
            fit_batch(given[:count], config)
        seconds = time.perf_counter() - started
        rows.append({"part": f"fit of {count}", "seconds": seconds, "assets_an_hour": 3600 * count / seconds,
                     "peak_bytes": memory.bytes})  # fmt: skip
    return rows


def recovery(options: Options) -> list[dict[str, Any]]:
    """Whether a fit of two that runs out of memory leaves room for two fits of one."""
    if options.tiny:
        return [{"part": "recovery from a full memory", "skipped": "needs a GPU"}]
    given, config = targets(options, 2), replace(settings(options), iterations=60)
    with PeakMemory(torch.device("cuda")) as memory:
        fit_batch(given[:1], config)
    gc.collect()
    torch.cuda.empty_cache()
    before, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((before + 1.4 * (memory.bytes or 0)) / total)
    failed = ran_out(given, config)
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated() - before
    for one in given:
        fit_batch([one], config)
    torch.cuda.set_per_process_memory_fraction(1.0)
    return [{"part": "recovery from a full memory", "left_bytes": left, "holds": failed and left < 1 << 20}]


def ran_out(given: list[FitTarget], config: FitConfig) -> bool:
    """Whether the fits together were more than the memory holds; what they took is let go on return."""
    try:
        fit_batch(given, config)
    except torch.OutOfMemoryError:
        return True
    return False


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[f"{v:.4g}" if isinstance(v := row.get(name, ""), float) else str(v) for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """The command."""
    import tyro

    options = tyro.cli(Options, description=__doc__)
    card = "CPU" if options.tiny else torch.cuda.get_device_name()
    ends = time.monotonic() + 60 * options.minutes
    rows = parity(options) + fits(options) + recovery(options) + training(options.tiny)
    rows += adapters(options.tiny, ends)
    print(page(rows))
    if not options.tiny:
        options.results.mkdir(parents=True, exist_ok=True)
        text = f"# {card}\n\n`python -m benchmarks.gpu`, {time.strftime('%Y-%m-%d')}, {options.size} px, "
        text += f"{options.iterations} iterations, LPIPS by {options.perceptual}, torch {torch.__version__}\n\n"
        (options.results / f"{card.replace(' ', '-').lower()}.md").write_text(f"{text}{page(rows)}\n")
    print(json.dumps({"card": card, "size": options.size, "iterations": options.iterations, "rows": rows}))
    if not all(row.get("holds", True) for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
