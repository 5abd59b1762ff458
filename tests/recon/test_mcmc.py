import pytest
import torch
from torch.nn import Parameter

from recon.cameras import turntable
from recon.config import DensifyConfig, FitConfig
from recon.fit import fit
from recon.gaussians import render
from recon.mcmc import FADED, cost, inject_noise, populate, relocation, rotations
from recon.rasterize import rasterize
from tests.recon.test_fit import CAMERAS, FRAMES, psnr_and_iou


def scene(count: int = 12) -> tuple[dict[str, Parameter], torch.optim.Adam]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
    params = {name: Parameter(torch.randn(count, *shape, generator=generator)) for name, shape in shapes.items()}
    params["scales"] = Parameter(params["scales"].detach() * 0.1 - 3)
    params["opacities"] = Parameter(torch.ones(count))
    return params, torch.optim.Adam([{"name": n, "params": [p], "lr": 1e-3} for n, p in params.items()])


@pytest.mark.parametrize("copies", [1, 2, 8])
@pytest.mark.parametrize("opacity", [0.4, 0.95])
def test_copies_together_look_as_the_one_did(copies, opacity):
    """In the middle, and in sum along a line through it, which is what eq. 9 keeps."""
    new_opacity, new_scales = relocation(torch.tensor([opacity]), torch.full((1, 3), 0.2), torch.tensor([copies]))
    cameras = turntable(0.0, 48)

    def alpha(count, opacities, scales):
        _, image, _ = rasterize(
            torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), scales.expand(count, 3),
            opacities.expand(count), torch.ones(count, 3), cameras.viewmats[:1], cameras.Ks[:1], 48, 48, eps2d=0.0,
        )  # fmt: skip
        return image[0, ..., 0]

    one = alpha(1, torch.tensor([opacity]), torch.full((1, 3), 0.2))
    many = alpha(copies, new_opacity, new_scales)
    assert many[24, 24] == pytest.approx(one[24, 24].item(), abs=0.01)
    ratio = (many[24].sum() / one[24].sum()).item()
    assert ratio == pytest.approx(1.0, abs=0.08)


def test_faded_gaussians_move_to_opaque_ones_and_growth_keeps_the_cap():
    params, optimizer = scene()
    with torch.no_grad():
        params["opacities"][:4] = -8.0
    old = params["means"].detach().clone()
    counts = populate(params, optimizer, DensifyConfig(max_gaussians=14, grow_share=1.0), torch.Generator())
    assert counts == {"pruned": 4, "cloned": 6, "split": 0}
    assert {len(value) for value in params.values()} == {14}
    assert params["opacities"].detach().sigmoid().min() >= FADED
    for mean in params["means"].detach()[[0, 1, 2, 3, 12, 13]]:
        assert (old[4:] - mean).abs().sum(1).min() == 0
    assert populate(params, optimizer, DensifyConfig(), torch.Generator(), grow=False)["cloned"] == 0


def test_only_faint_gaussians_wander_and_along_their_own_axes():
    params, _ = scene(2000)
    with torch.no_grad():
        params["opacities"][:1000], params["opacities"][1000:] = 3.0, -9.0
        params["scales"][:] = torch.tensor([0.0, -3.0, -6.0])
    old = params["means"].detach().clone()
    inject_noise(params, 1.0, torch.Generator().manual_seed(2))
    moved = params["means"].detach() - old
    assert moved[:1000].abs().max() < 1e-6
    along = torch.einsum("nik,ni->nk", rotations(params["quats"].detach()), moved)[1000:].std(0)
    wanted = 0.62 * params["scales"].detach()[0].exp().square()
    assert torch.allclose(along, wanted, rtol=0.1)


def test_cost_pulls_opacity_and_size_down():
    params, _ = scene()
    cost(params, DensifyConfig(method="mcmc")).backward()
    assert params["opacities"].grad.min() > 0
    assert params["scales"].grad.min() > 0


def test_a_ball_is_fitted_under_the_cap():
    config = FitConfig(
        iterations=100,
        num_points=400,
        densify=DensifyConfig(method="mcmc", every=20, max_gaussians=700, grow_share=0.3),
    )
    result = fit(FRAMES, None, CAMERAS, config, seed=1)
    assert result.history[-1]["num_gaussians"] == 700
    psnr, iou = psnr_and_iou(result.gaussians, CAMERAS)
    assert psnr > 17
    assert iou > 0.85
    assert render(result.gaussians, CAMERAS)[0].isfinite().all()


def test_unknown_method_names_the_available():
    with pytest.raises(ValueError, match="available: paper, mcmc"):
        DensifyConfig(method="best")  # type: ignore[arg-type]
