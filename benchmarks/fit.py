"""Time the parts of a whole fit, as it is and by the plain way beside it, on the same targets: `main`.

    python -m benchmarks.fit [--assets DIR] [--split val] [--limit 1] [--fit.iterations 1200]

"before" is the fit in plain torch over whole frames at full size (`fit.loss.fast`, `fit.window`,
`fit.coarse_iterations` and `fit.densify.prune_weight` off), "after" the fit as the settings have it; every asset is
fitted both ways in turn, in changing order. Without assets, the targets are renders of a lumpy sphere. Prints CPU
seconds by part, means over the assets, then one line of JSON: ``before`` and ``after`` with ``seconds``, ``parts``,
``psnr``, ``iou`` and ``lpips`` on views between those fitted, and the ``ratio`` of the seconds. Kernels that find a
loss's gradient along with its value count as forward.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from benchmarks import reconstruction
from factory.config.settings import preset
from recon.config import FitConfig

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("render forward", "render backward", "perceptual forward", "perceptual backward", "MS-SSIM", "mask",
         "optimiser", "densification")  # fmt: skip
SPHERE = 20_000
"""Gaussians of the lumpy sphere."""


@dataclass(kw_only=True, slots=True)
class Options:
    """What to fit and how."""

    assets: Path | None = None
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    """Rows of assets.jsonl whose split this is."""
    limit: int = 1
    """At most this many assets, taken at uniform steps through the split."""
    size: int = 128
    """Pixels a side."""
    views: int = 16
    """Views to fit to."""
    seed: int = 0
    """Of elevations and fits."""
    fit: FitConfig = field(default_factory=lambda: preset("pocket").fit)


@dataclass(kw_only=True, slots=True)
class Case:
    """Targets uint8 [V,S,S,4] at an elevation (radians), and views between them."""

    name: str
    elevation: float
    targets: np.ndarray
    between: np.ndarray


def cases(options: Options) -> Iterator[Case]:
    """The assets, or the lumpy sphere."""
    step = math.pi / options.views
    if options.assets is None:
        yield _sphere(options, step)
        return
    from factory.evaluation.truth import true_turntable
    from recon.meshes.load import load_mesh

    random = np.random.default_rng(options.seed)
    chosen = reconstruction.Options(assets=options.assets, split=options.split, limit=options.limit)
    for asset in reconstruction.chosen_assets(chosen):
        mesh, elevation = load_mesh(options.assets / asset["path"]), float(random.uniform(0, math.pi / 4))
        views = [true_turntable(mesh, elevation, options.size, count, start)
                 for count, start in ((options.views, 0.0), (reconstruction.UNSEEN_VIEWS, step))]  # fmt: skip
        yield Case(name=asset["id"], elevation=elevation, targets=views[0], between=views[1])


def _sphere(options: Options, step: float) -> Case:
    import torch

    from benchmarks.rasterize import scene
    from recon.cameras import OrbitConfig, turntable
    from recon.rasterize import rasterize

    views, elevation = [], 0.3
    for count, start in ((options.views, 0.0), (reconstruction.UNSEEN_VIEWS, step)):
        cameras = turntable(elevation, options.size, OrbitConfig(num_views=count), start)
        with torch.no_grad():
            rgb, alpha, _ = rasterize(**scene(SPHERE), viewmats=cameras.viewmats, Ks=cameras.Ks, width=options.size,
                                      height=options.size, backgrounds=torch.ones(count, 3))  # fmt: skip
        views.append((torch.cat([rgb, alpha], -1).clamp(0, 1) * 255).round().byte().numpy())
    return Case(name="lumpy sphere", elevation=elevation, targets=views[0], between=views[1])


class Clock:
    """CPU seconds by part, of the process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens within."""
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.process_time() - started

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call

    def term(self, method: Callable[..., Tensor], given: str, forward: str, backward: str) -> Callable[..., Tensor]:
        """A term of the loss that looks at the renders' `given`, counted; autograd goes back through it in one go."""
        started: list[float] = []

        def stop() -> None:
            self.seconds[backward] += time.process_time() - started.pop()

        def call(loss: Any, renders: Any) -> Tensor:
            with self.part(forward):
                opened = replace(renders, **{given: gate(getattr(renders, given), stop)})
                return gate(method(loss, opened), lambda: started.append(time.process_time()))

        return call

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Count the parts of all fits within."""
        from recon import fitter
        from recon.losses import FitLoss
        from recon.rasterize import cpu

        loss, steps = FitLoss, fitter.Fitter
        backwards = [(owner, "backward", staticmethod(self.timed("render backward", owner.backward)))
                     for owner in (cpu._Project, cpu._Blend)]  # fmt: skip
        swaps = [
            (fitter, "rasterize", self.timed("render forward", fitter.rasterize)),
            *backwards,
            (loss, "_lpips", self.term(loss._lpips, "rgb", "perceptual forward", "perceptual backward")),
            (loss, "_ms_ssim", self.term(loss._ms_ssim, "rgb", "MS-SSIM", "MS-SSIM")),
            (loss, "_mask", self.term(loss._mask, "alpha", "mask", "mask")),
            (steps, "_advance", self.timed("optimiser", steps._advance)),
            (steps, "_densify", self.timed("densification", steps._densify)),
            (fitter, "accumulate", self.timed("densification", fitter.accumulate)),
        ]
        with ExitStack() as stack:
            for swap in swaps:
                stack.enter_context(patch.object(*swap))
            yield


def gate(values: Tensor, passed: Callable[[], None]) -> Tensor:
    """`values`; `passed` is called when their gradient comes by."""
    opened = values.view_as(values)
    if opened.requires_grad:
        opened.register_hook(lambda gradient: passed())
    return opened


def plain(config: FitConfig) -> FitConfig:
    """The same fit without what makes it fast."""
    return replace(
        config, window=False, coarse_iterations=0, loss=replace(config.loss, fast=False),
        densify=replace(config.densify, prune_weight=0.0),
    )  # fmt: skip


def fitted(case: Case, options: Options, config: FitConfig, perceptual: Any) -> dict[str, Any]:
    """Seconds, parts and quality of one fit."""
    from factory.evaluation.truth import judge
    from recon.cameras import OrbitConfig, turntable
    from recon.fit import fit
    from recon.gaussians import render

    clock, orbit = Clock(), OrbitConfig(num_views=options.views)
    started = time.process_time()
    with clock.installed():
        result = fit(case.targets, None, turntable(case.elevation, options.size, orbit), config, options.seed)
    seconds = time.process_time() - started
    between = OrbitConfig(num_views=len(case.between))
    cameras = turntable(case.elevation, options.size, between, math.pi / options.views)
    rgb, alpha = (image.detach().cpu().numpy() for image in render(result.gaussians, cameras))
    parts = clock.seconds | {"rest": seconds - sum(clock.seconds.values())}
    return {"seconds": seconds, "parts": parts, **judge(case.between, rgb, alpha[..., 0], perceptual)}


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of what `fitted` found."""
    found: dict[str, Any] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "parts"}
    parts = {part: round(float(np.mean([row["parts"][part] for row in rows])), 3) for part in rows[0]["parts"]}
    return {name: round(value, 4) for name, value in found.items()} | {"parts": parts}


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    import numba
    import torch

    from recon.perceptual import load_perceptual

    numba.set_num_threads(1)
    torch.set_num_threads(1)
    perceptual, ways = load_perceptual("pocket"), {"before": plain(options.fit), "after": options.fit}
    rows: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number, case in enumerate(cases(options)):
        for way in list(ways)[:: -1 if number % 2 else 1]:
            if not number:
                fitted(case, options, replace(ways[way], iterations=2), perceptual)
            rows[way].append(fitted(case, options, ways[way], perceptual))
        print(case.name, *(f"{way} {rows[way][-1]['seconds']:.1f} s" for way in ways), flush=True)
    found = {way: mean_of(rows[way]) for way in ways}
    print(f"{'CPU seconds':<20} {'before':>8} {'after':>8}")
    for part in (*PARTS, "rest"):
        print(f"{part:<20} {found['before']['parts'][part]:8.2f} {found['after']['parts'][part]:8.2f}")
    for name in ("seconds", "psnr", "iou", "lpips"):
        print(f"{name:<20} {found['before'][name]:8.4g} {found['after'][name]:8.4g}")
    summary = found | {
        "ratio": round(found["after"]["seconds"] / found["before"]["seconds"], 3), "assets": len(rows["after"]),
        "iterations": options.fit.iterations, "size": options.size, "views": options.views,
    }  # fmt: skip
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
