from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig, LossConfig, PoseConfig, RefineConfig
from recon.fit import fit
from recon.fit_batch import FILLING, FitBatch, FitTarget, fit_batch, joined
from recon.fitter import Fitter
from recon.gaussians import init_ball
from recon.rasterize import rasterize
from recon.refine import LoopConfig, Turntable, reconstruct, reconstruct_batch

SIZE, VIEWS = 32, 6
CAMERAS = turntable(0.3, SIZE, OrbitConfig(num_views=VIEWS))
CONFIG = FitConfig(
    iterations=54, num_points=200, densify=DensifyConfig(every=18, max_gaussians=320, prune_opacity=0.09)
)


def disc(radius: float, colour: tuple[int, int, int]) -> np.ndarray:
    """RGBA uint8 [V,S,S,4] of a ball of one colour."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    frames = np.full((VIEWS, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, x**2 + y**2 < radius**2] = (*colour, 255)
    return frames


OBJECTS = [disc(10, (200, 30, 30)), disc(5, (20, 60, 220)), disc(8, (30, 160, 40))]
TARGETS = [FitTarget(frames=frames, cameras=CAMERAS, seed=seed) for seed, frames in enumerate(OBJECTS)]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"views": 2, "coarse_iterations": 20, "sh_degree": 1, "robust": 1.0, "init": "hull"},
        {"densify": DensifyConfig(method="mcmc", every=18, max_gaussians=320)},
        {"pose": PoseConfig(views=True, exposure=True, elevation=True, trial_iterations=5)},
    ],
)
def test_assets_come_out_as_from_fits_by_themselves(change):
    config = replace(CONFIG, **change)
    alone = [fit(t.frames, None, CAMERAS, config, t.seed) for t in TARGETS]
    together = fit_batch(TARGETS, config)
    for one, other in zip(alone, together, strict=True):
        for name in ("means", "quats", "scales", "opacities", "sh0", "shN"):
            assert torch.equal(getattr(one.gaussians, name), getattr(other.gaussians, name)), name
        skip = {"seconds"}
        assert [{k: v for k, v in r.items() if k not in skip} for r in one.history] == [
            {k: v for k, v in r.items() if k not in skip} for r in other.history
        ]
        assert torch.equal(one.cameras.viewmats, other.cameras.viewmats)


def test_every_asset_has_its_own_number_of_gaussians():
    counts = [[record["num_gaussians"] for record in result.history] for result in fit_batch(TARGETS, CONFIG)]
    assert len({tuple(found) for found in counts}) == len(counts)


def test_the_network_looks_at_all_renders_at_once_as_on_a_gpu():
    """Gradients agree within rounding; where they are all but zero, Adam makes whole steps of the rounding."""
    config = replace(CONFIG, window=False, loss=LossConfig(fast=False))
    fitters = [Fitter(CAMERAS, config, target.seed) for target in TARGETS]
    calls = []
    for fitter, target in zip(fitters, TARGETS, strict=True):
        fitter.set_targets(target.frames)
    batch = FitBatch(fitters)
    batch.together = True
    network = fitters[0]._losses[1].network
    original = network.features
    try:
        network.features = lambda images: calls.append(len(images)) or original(images)
        batch.run(1)
    finally:
        del network.features
    assert calls == [len(TARGETS)]
    for fitter, target in zip(fitters, TARGETS, strict=True):
        alone = Fitter(CAMERAS, config, target.seed)
        alone.set_targets(target.frames)
        alone.run(1)
        assert fitter.history[-1]["losses"] == pytest.approx(alone.history[-1]["losses"], rel=1e-5)
        for name in alone.params.keys() - {"quats"}:  # a round Gaussian's rotation has no gradient but rounding
            value = alone.params[name]
            wanted = alone.optimizer.state[value]["exp_avg"]
            found = fitter.optimizer.state[fitter.params[name]]["exp_avg"]
            assert (found - wanted).norm() <= 1e-4 * wanted.norm(), name


@pytest.mark.parametrize("sh_degree", [None, 1])
def test_scenes_of_one_call_are_rendered_as_each_by_itself(sh_degree):
    """Pictures, gradients and the projected means' gradients, with scenes of different size filled up."""
    scenes = []
    for number, count in enumerate((40, 25)):
        g = init_ball(count, radius=0.6, opacity=0.5, sh_degree=1, generator=torch.Generator().manual_seed(number))
        g.sh0 += number
        colours = g.sh if sh_degree else g.base_colours
        values = {"means": g.means, "quats": g.quats, "scales": g.standard_deviations, "opacities": g.alphas}
        scenes.append({k: v.clone().requires_grad_() for k, v in (values | {"colors": colours}).items()})
    cameras = {"viewmats": CAMERAS.viewmats[:2], "Ks": CAMERAS.Ks[:2], "backgrounds": torch.ones(2, 3)}
    rgb, alpha, meta = rasterize(
        **joined([scene | cameras for scene in scenes]), width=SIZE, height=SIZE, sh_degree=sh_degree
    )
    meta["means2d"].retain_grad()
    (rgb.square().sum() + alpha.sum()).backward()
    found = [{name: value.grad for name, value in scene.items()} for scene in scenes]
    for number, scene in enumerate(scenes):
        scene = {name: value.detach().requires_grad_() for name, value in scene.items()}
        one, opacity, its = rasterize(**scene, **cameras, width=SIZE, height=SIZE, sh_degree=sh_degree)
        its["means2d"].retain_grad()
        (one.square().sum() + opacity.sum()).backward()
        assert torch.equal(rgb[number], one)
        assert torch.equal(alpha[number], opacity)
        assert all(torch.equal(found[number][name], value.grad) for name, value in scene.items())
        count = len(scene["means"])
        assert torch.equal(meta["means2d"].grad[number, :, :count], its["means2d"].grad)
        assert torch.equal(meta["radii"][number, :, :count], its["radii"])
        assert not meta["radii"][number, :, count:].any()
    assert FILLING.keys() == scenes[0].keys()


def test_reconstruction_in_turns_with_a_refiner_equals_each_by_itself():
    class Darker:
        def refine(self, frames, image, prompt, seed):
            frames = frames.copy()
            frames[..., :3] = np.where(frames[..., 3:] > 127, frames[..., :3] // 2 + seed, 255)
            return frames

    config = LoopConfig(fit=replace(CONFIG, iterations=30), refine=RefineConfig(rounds_at=(10, 20)))
    given = [Turntable(frames=frames, elevation=0.3) for frames in OBJECTS]
    together = reconstruct_batch(given, config, [Darker()] * 3, seeds=[4, 5, 6])
    for one, seed, (gaussians, history) in zip(given, (4, 5, 6), together, strict=True):
        alone, record = reconstruct(one, config, Darker(), seed=seed)
        assert torch.equal(alone.means, gaussians.means)
        assert [part["stage"] for part in history] == ["fit", "refine", "fit", "refine", "fit"]
        assert [part["losses"] for part in history] == [part["losses"] for part in record]


def test_fits_that_do_not_belong_together_are_refused():
    other = turntable(0.3, 16, OrbitConfig(num_views=VIEWS))
    with pytest.raises(ValueError, match=r"\[\(16, 0\), \(32, 0\)\] cannot run together"):
        FitBatch([Fitter(CAMERAS, CONFIG), Fitter(other, CONFIG)])
    with pytest.raises(ValueError, match="one configuration"):
        FitBatch([Fitter(CAMERAS, CONFIG), Fitter(CAMERAS, replace(CONFIG, views=2))])
    with pytest.raises(ValueError, match="one or more fitters"):
        FitBatch([])
    with pytest.raises(ValueError, match="no targets"):
        FitBatch([Fitter(CAMERAS, CONFIG), Fitter(CAMERAS, CONFIG)]).run(1)
