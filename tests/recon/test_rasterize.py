import inspect
import subprocess
import sys

import pytest
import torch

from recon.cameras import turntable
from recon.rasterize import rasterize
from recon.rasterize.cpu import blend_tiles, project
from recon.rasterize.gsplat_cuda import rasterize_gsplat
from recon.rasterize.spherical_harmonics import basis
from tests.recon import dense_reference

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")


def scene(count, spread=0.5, scale=0.08, views=1, size=32, channels=3, seed=0, faint=False):
    """Random Gaussians around the origin, orbit cameras with unequal focal lengths, and backgrounds."""
    generator = torch.Generator().manual_seed(seed)
    cameras = turntable(0.3, size)
    opacities = torch.rand(count, generator=generator)
    inputs = {
        "means": torch.randn(count, 3, generator=generator) * spread,
        "quats": torch.randn(count, 4, generator=generator),
        "scales": torch.exp(0.7 * torch.randn(count, 3, generator=generator)) * scale,
        "opacities": opacities * 0.02 if faint else opacities**0.3,
        "colors": torch.rand(count, channels, generator=generator),
        "viewmats": cameras.viewmats[: 5 * views : 5].clone(),
        "backgrounds": torch.rand(views, channels, generator=generator),
    }
    Ks = cameras.Ks[:views].clone()
    Ks[:, 0, 0] *= 1.3
    return inputs, Ks


def both(inputs, Ks, width, height, mode="RGB", seed=0):
    """Renders and gradients of one random loss: of the engine, and of the dense float64 reference."""
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = {name: value.detach().to(dtype).requires_grad_() for name, value in inputs.items()}
        if dtype == torch.float32:
            renders, alphas, meta = rasterize(**leaves, Ks=Ks, width=width, height=height, render_mode=mode)
            centres = meta["means2d"]
            centres.retain_grad()
            alphas = alphas[..., 0]
        else:
            renders, alphas, centres = dense_reference.rasterize(
                *(leaves[name] for name in NAMES[:6]), Ks.double(), width, height, leaves["backgrounds"],
                depth="+" in mode,
            )  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        loss = (renders * torch.randn(renders.shape, generator=generator)).sum()
        loss = loss + (alphas * torch.randn(alphas.shape, generator=generator)).sum()
        loss.backward()
        gradients = {name: leaf.grad for name, leaf in leaves.items()}
        gradients["means2d"] = centres.grad if dtype == torch.float32 else torch.stack([c.grad for c in centres])
        results.append((renders.detach(), alphas.detach(), gradients))
    return results


def assert_same(results, image_tolerance=1e-5, gradient_tolerance=1e-4):
    """The background's gradient is a sum of T = 1 - alpha, known to 1e-7 a pixel however small T is."""
    (renders, alphas, gradients), (true_renders, true_alphas, true_gradients) = results
    assert (renders[..., :3] - true_renders[..., :3]).abs().max() <= image_tolerance
    assert (renders - true_renders).abs().max() <= 4 * image_tolerance, "depth, in units of about 3"
    assert (alphas - true_alphas).abs().max() <= image_tolerance
    for name, expected in true_gradients.items():
        error, limit = (gradients[name] - expected).norm(), gradient_tolerance * expected.norm()
        if name == "backgrounds":
            limit = limit + 1e-6 * alphas.numel()
        assert error <= limit, f"{name}: error {error:.2e} of {expected.norm():.2e}"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"count": 300, "scale": 0.08, "views": 2}, (32, 32)),
        ({"count": 800, "scale": 0.03, "seed": 1}, (48, 40)),
        ({"count": 40, "scale": 0.6, "views": 2, "seed": 2}, (70, 50)),
        ({"count": 300, "scale": 0.005, "views": 3, "seed": 3}, (64, 64)),
        ({"count": 100, "scale": 0.2, "seed": 4}, (150, 37)),
        ({"count": 60, "scale": 3.0, "seed": 5}, (20, 20)),
        ({"count": 200, "scale": 0.1, "faint": True, "seed": 6}, (33, 31)),
        ({"count": 200, "channels": 1, "seed": 7}, (17, 5)),
        ({"count": 200, "channels": 9, "seed": 8}, (24, 24)),
    ],
)
def test_image_and_every_gradient_equal_the_dense_reference(arguments, size):
    inputs, Ks = scene(size=size[0], **arguments)
    assert_same(both(inputs, Ks, *size))


def test_depth_is_blended_and_has_gradients():
    inputs, Ks = scene(200, views=2)
    assert_same(both(inputs, Ks, 32, 32, mode="RGB+D"))


def test_every_gradient_of_the_reference_by_finite_differences():
    """The oracle itself: float64 autograd against central differences, for every input."""
    inputs, Ks = scene(4, scale=0.2, size=5)
    leaves = [inputs[name].double().requires_grad_() for name in NAMES]
    leaves[3] = (0.3 + 0.4 * inputs["opacities"].double()).requires_grad_()

    def loss(*values):
        images, alphas = [], []
        for viewmat, background in zip(values[5], values[6], strict=True):
            means2d, cov2d, depths = dense_reference.project(*values[:3], viewmat, Ks[0].double(), 5, 5)
            features = torch.cat([values[4], depths[:, None]], -1)
            background = torch.cat([background, background.new_zeros(1)])
            image, alpha = dense_reference.blend(
                means2d, cov2d, depths, values[3], features, background, 5, 5, min_alpha=0.0
            )
            images.append(image)
            alphas.append(alpha)
        return torch.stack(images), torch.stack(alphas)

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_slope_of_the_rendered_loss(name):
    """The engine alone: the directional derivative against central differences of its own float32 images.

    The weights are smooth, since alpha jumps by 1/255 at each Gaussian's contour, which no gradient sees.
    """
    inputs, Ks = scene(30, scale=0.25, size=24, seed=11)
    ramp = torch.linspace(-1, 1, 24).double()
    across = torch.cos(3 * ramp + 0.5)[:, None] * torch.tensor([1.0, 0.5, -0.7]).double()
    weights = torch.sin(2 * ramp)[:, None, None] + across + 0.3

    def loss(value):
        renders, _, _ = rasterize(**(inputs | {name: value}), Ks=Ks, width=24, height=24)
        return (renders.double() * weights).sum()

    leaf = inputs[name].clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    direction = leaf.grad / leaf.grad.norm()
    slopes = [float(loss(leaf.detach() + h * direction) - loss(leaf.detach() - h * direction)) / (2 * h)
              for h in (1e-3, 3e-3, 1e-2)]  # fmt: skip
    expected = float(leaf.grad.norm())
    assert min(abs(slope - expected) for slope in slopes) <= 0.01 * expected


def test_opaque_layers_stop_a_pixel_before_the_transmittance_limit():
    """Two layers of 0.999 would leave 1e-6: the second is not blended, as in gsplat."""
    inputs, Ks = scene(3, scale=0.5, size=16)
    inputs["means"] = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, -0.5]])
    inputs["viewmats"] = turntable(0.0, 16).viewmats[:1]
    inputs["opacities"] = torch.ones(3)
    inputs["scales"] = torch.full((3, 3), 5.0)
    inputs["colors"] = torch.eye(3)
    inputs["backgrounds"] = torch.zeros(1, 3)
    renders, alphas, _ = rasterize(**inputs, Ks=Ks, width=16, height=16)
    assert torch.allclose(renders[0, 8, 8], torch.tensor([0.999, 0.0, 0.0]), atol=1e-6)
    assert alphas[0, 8, 8, 0] == pytest.approx(0.999, abs=1e-6)


def test_opacity_under_1_in_255_is_invisible_and_radius_is_the_contour():
    inputs, Ks = scene(2, size=64)
    inputs |= {"means": torch.zeros(2, 3), "scales": torch.full((2, 3), 0.05), "colors": torch.ones(2, 3)}
    inputs["opacities"] = torch.tensor([0.9 / 255, 0.5])
    _, alphas, meta = rasterize(**inputs, Ks=Ks, width=64, height=64)
    assert meta["radii"][0, 0].tolist() == [0, 0]
    sigma = ((0.05 * Ks[0, 1, 1] / 3.0115) ** 2 + 0.3).sqrt()
    radius = sigma * (2 * torch.log(torch.tensor(0.5 * 255))).sqrt()
    assert meta["radii"][0, 1, 1] == radius.ceil()
    rows = (alphas[0, :, :, 0] > 0).any(1).nonzero()[:, 0]
    assert rows.min() == torch.ceil(32 - radius - 0.5)
    assert rows.max() == torch.floor(32 + radius - 0.5)
    assert alphas[alphas > 0].min() >= 1 / 255 - 1e-7


@pytest.mark.parametrize("count", [0, 1])
def test_few_gaussians(count):
    inputs, Ks = scene(count)
    if count:
        assert_same(both(inputs, Ks, 32, 32))
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    renders, alphas, meta = rasterize(**leaves, Ks=Ks, width=32, height=32)
    (renders.sum() + alphas.sum()).backward()
    assert meta["means2d"].shape == (1, count, 2)
    if not count:
        assert torch.equal(renders, leaves["backgrounds"][:, None, None].expand(1, 32, 32, 3))
        assert torch.equal(leaves["backgrounds"].grad, torch.full((1, 3), 1024.0))
        assert leaves["means"].grad.shape == (0, 3)


@pytest.mark.parametrize("where", ["behind", "beside"])
def test_nothing_visible_leaves_the_background_and_zero_gradients(where):
    inputs, Ks = scene(50)
    centre = -inputs["viewmats"][0, :3, :3].T @ inputs["viewmats"][0, :3, 3]
    inputs["means"] = inputs["means"] * 0.1 + (2 * centre if where == "behind" else torch.tensor([30.0, 0, 0]))
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    renders, alphas, meta = rasterize(**leaves, Ks=Ks, width=32, height=32)
    (renders.sum() + alphas.sum()).backward()
    assert torch.equal(renders, leaves["backgrounds"][:, None, None].expand(1, 32, 32, 3))
    assert alphas.max() == 0
    assert meta["radii"].max() == 0
    for name in NAMES[:6]:
        assert leaves[name].grad.abs().max() == 0, name


def test_gaussians_on_both_sides_of_the_camera():
    inputs, Ks = scene(400, spread=4.0, scale=0.2, seed=11)
    inputs["means"][:, 0] *= 0.2
    results = both(inputs, Ks, 32, 32)
    assert_same(results)
    unseen = results[0][2]["means"].abs().amax(1) == 0
    assert 0.3 < unseen.float().mean() < 0.95


def test_several_views_equal_one_after_another():
    inputs, Ks = scene(200, views=3)
    together, _, meta = rasterize(**inputs, Ks=Ks, width=32, height=32)
    for view in range(3):
        one = inputs | {name: inputs[name][view : view + 1] for name in ("viewmats", "backgrounds")}
        alone, _, alone_meta = rasterize(**one, Ks=Ks[view : view + 1], width=32, height=32)
        assert torch.equal(alone[0], together[view])
        assert torch.equal(alone_meta["radii"][0], meta["radii"][view])


def test_strided_inputs_get_their_gradients():
    inputs, Ks = scene(50)
    strided = {name: inputs[name].T.contiguous().T.requires_grad_() for name in ("means", "quats", "scales", "colors")}
    renders, _, _ = rasterize(**(inputs | strided), Ks=Ks, width=32, height=32)
    renders.sum().backward()
    plain = {name: inputs[name].requires_grad_() for name in strided}
    expected, _, _ = rasterize(**(inputs | plain), Ks=Ks, width=32, height=32)
    expected.sum().backward()
    assert torch.equal(renders, expected)
    for name, leaf in plain.items():
        assert torch.equal(strided[name].grad, leaf.grad), name


def test_colours_of_each_view():
    inputs, Ks = scene(100, views=2)
    per_view = torch.stack([inputs["colors"], inputs["colors"].flip(1)]).requires_grad_()
    renders, _, _ = rasterize(**(inputs | {"colors": per_view}), Ks=Ks, width=32, height=32)
    shared, _, _ = rasterize(**inputs, Ks=Ks, width=32, height=32)
    assert torch.equal(renders[0], shared[0])
    renders[1].sum().backward()
    assert per_view.grad[0].abs().max() == 0
    assert per_view.grad[1].abs().max() > 0


def test_depth_modes():
    inputs, Ks = scene(100, views=2)
    options = {"Ks": Ks, "width": 32, "height": 32}
    modes = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
    renders = {mode: rasterize(**inputs, **options, render_mode=mode) for mode in modes}
    alphas = renders["D"][1]
    assert torch.equal(renders["RGB+D"][0][..., :3], renders["RGB"][0])
    assert torch.equal(renders["RGB+D"][0][..., 3:], renders["D"][0])
    assert torch.allclose(renders["ED"][0], renders["D"][0] / alphas.clamp(min=1e-10))
    assert torch.equal(renders["RGB+ED"][0][..., 3:], renders["ED"][0])
    covered = renders["ED"][0][alphas > 0.5]
    assert covered.min() > 1.0
    assert covered.max() < 5.0


def sh_colors(degree, seed=0):
    inputs, Ks = scene(60, views=2, scale=0.15)
    generator = torch.Generator().manual_seed(seed)
    inputs["colors"] = torch.randn(60, (degree + 1) ** 2, 3, generator=generator) * 0.4
    return inputs, Ks


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_equal_direct_colours_and_have_their_gradients(degree):
    inputs, Ks = sh_colors(degree)
    leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
    centres = torch.linalg.inv(leaves["viewmats"])[:, :3, 3]
    directions = leaves["means"] - centres[:, None]
    directions = directions / directions.norm(dim=-1, keepdim=True)
    colors = (torch.einsum("cnk,nkd->cnd", basis(degree, directions), leaves["colors"]) + 0.5).clamp_min(0)
    values = [leaves[name] for name in NAMES[:4]] + [colors, leaves["viewmats"]]
    expected, _, _ = dense_reference.rasterize(*values, Ks.double(), 32, 32, leaves["backgrounds"])
    singles = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    renders, _, _ = rasterize(**singles, Ks=Ks, width=32, height=32, sh_degree=degree)
    assert (renders - expected).abs().max() <= 1e-5
    weights = torch.randn(renders.shape, generator=torch.Generator().manual_seed(1))
    (renders * weights).sum().backward()
    (expected * weights).sum().backward()
    for name in NAMES:
        error = (singles[name].grad - leaves[name].grad).norm() / leaves[name].grad.norm()
        assert error <= 1e-4, f"{name}: relative error {error:.2e}"


def test_spherical_harmonics_are_orthonormal():
    """Mean over the sphere of y_i y_j is delta_ij / (4 pi)."""
    count = 20000
    z = 1 - (2 * torch.arange(count, dtype=torch.float64) + 1) / count
    angle = torch.arange(count, dtype=torch.float64) * torch.pi * (3 - 5**0.5)
    radius = (1 - z * z).sqrt()
    values = basis(3, torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1))
    product = 4 * torch.pi * values.T @ values / count
    assert torch.allclose(product, torch.eye(16, dtype=torch.float64), atol=1e-3)


def test_far_plane_and_radius_clip_drop_gaussians():
    inputs, Ks = scene(200)
    _, _, meta = rasterize(**inputs, Ks=Ks, width=32, height=32)
    _, _, near = rasterize(**inputs, Ks=Ks, width=32, height=32, far_plane=3.0)
    assert torch.equal(near["radii"][..., 0] > 0, (meta["radii"][..., 0] > 0) & (meta["depths"] <= 3.0))
    _, _, large = rasterize(**inputs, Ks=Ks, width=32, height=32, radius_clip=4.0)
    assert torch.equal(large["radii"][..., 0] > 0, (meta["radii"] > 4).any(-1))


THREADS = """
import hashlib, numba, torch
from recon.cameras import turntable
from recon.gaussians import init_ball
from recon.rasterize import rasterize
ball = init_ball(3000, generator=torch.Generator().manual_seed(0))
cameras = turntable(0.3, 100)
for threads in (1, 2):
    numba.set_num_threads(threads)
    leaves = [t.clone().requires_grad_() for t in (ball.means, ball.quats, ball.standard_deviations, ball.alphas,
              ball.means * 0.5 + 0.5, cameras.viewmats[:3])]
    renders, alphas, meta = rasterize(*leaves, cameras.Ks[:3], 100, 100)
    (renders.square().sum() + alphas.square().sum()).backward()
    digest = hashlib.sha256(renders.detach().numpy().tobytes())
    for leaf in leaves:
        digest.update(leaf.grad.numpy().tobytes())
    print(digest.hexdigest())
"""


def test_bytes_do_not_depend_on_the_number_of_threads():
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env={"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.split()
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": float("nan")}, "means holds 1 values that are not finite"),
        ({"scales": float("inf")}, "scales holds 1 values that are not finite"),
        ({"colors": torch.rand(7, 3)}, r"colors has shape \(7, 3\); with 20 means and 1 viewmats it must be \(20, 3\)"),
        ({"quats": torch.rand(20, 3)}, "quats has shape"),
        ({"backgrounds": torch.rand(2, 3)}, "backgrounds has shape"),
        ({"means": torch.rand(20, 3, dtype=torch.float64)}, r"means is torch.float64.*means\.float\(\)"),
        ({"width": 0}, "0 x 32 pixels"),
        ({"render_mode": "depth"}, "render_mode is 'depth'; available: RGB"),
        ({"engine": "cuda"}, "engine is 'cuda'; available: auto"),
        ({"engine": "gsplat"}, "needs CUDA tensors"),
        ({"near_plane": 0.0}, "0 < near < far"),
        ({"sh_degree": 4, "colors": torch.rand(20, 25, 3)}, "sh_degree is 4"),
        ({"sh_degree": 2, "colors": torch.rand(20, 4, 3)}, "sh_degree 2 needs 9"),
    ],
)
def test_bad_input_is_named(change, message):
    inputs, Ks = scene(20)
    arguments = inputs | {"Ks": Ks, "width": 32, "height": 32}
    for name, value in change.items():
        if isinstance(value, float) and name in inputs:
            arguments[name] = inputs[name].clone()
            arguments[name].view(-1)[4] = value
        else:
            arguments[name] = value
    with pytest.raises(ValueError, match=message):
        rasterize(**arguments)


def packing_rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
    """What gsplat does with packed=True, by the CPU engine: what is visible is a list of pairs in between."""
    settings = (width, height, *(options[name] for name in ("eps2d", "near_plane", "far_plane", "radius_clip")))
    means2d, conics, depths, radii, reaches = project(means, quats, scales, opacities, viewmats, Ks, settings)
    pairs = (radii > 0).all(-1).nonzero(as_tuple=True)
    listed = means2d[pairs]
    full = torch.zeros_like(means2d).index_put(pairs, listed)
    backgrounds = options["backgrounds"]
    renders, alphas, _ = blend_tiles(full, conics, colors[None], opacities, backgrounds, depths, reaches, width, height)
    meta = {"camera_ids": pairs[0], "gaussian_ids": pairs[1], "means2d": listed, "radii": radii[pairs]}
    return renders, alphas, meta | {"depths": depths[pairs], "conics": conics[pairs]}


def test_packed_results_are_unpacked_with_the_gradient_of_the_means(monkeypatch):
    gsplat = pytest.importorskip("gsplat", reason="gsplat is not installed")
    signature = inspect.signature(gsplat.rasterization)

    def rasterization(*args, **options):
        assert signature.bind(*args, **options).arguments["packed"]
        return packing_rasterization(*args, **options)

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    monkeypatch.setattr("recon.rasterize.gsplat_cuda.load_kernels", lambda: None)
    inputs, Ks = scene(200, spread=1.0, views=2)
    options = {"eps2d": 0.3, "near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0, "sh_degree": None}
    found = []
    for render, chosen in ((rasterize_gsplat, options | {"render_mode": "RGB", "packed": True}), (rasterize, {})):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        renders, _, meta = render(**leaves, Ks=Ks, width=32, height=32, **chosen)
        meta["means2d"].retain_grad()
        renders.square().sum().backward()
        visible = (meta["radii"] > 0).all(-1)
        assert 0 < visible.float().mean() < 1
        projected = [meta[name].detach()[visible] for name in ("means2d", "depths", "conics")]
        gradients = [meta["means2d"].grad, *(leaf.grad for leaf in leaves.values())]
        found.append([renders.detach(), meta["radii"], *projected, *gradients])
    for ours, expected in zip(*found, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("mode", "degree", "packed"), [("RGB", None, False), ("RGB+ED", 3, False), ("D", 0, False), ("RGB+D", 1, True)]
)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat's engine needs a CUDA device, and there is none")
def test_both_engines_agree(mode, degree, packed):
    inputs, Ks = scene(500, views=2, size=64)
    if degree is not None:
        inputs["colors"] = torch.randn(500, 16, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    leaves = [{n: v.to(device).detach().requires_grad_() for n, v in inputs.items()} for device in ("cpu", "cuda")]
    options = {"width": 64, "height": 64, "render_mode": mode, "sh_degree": degree, "packed": packed}
    images, metas = [], []
    for leaf in leaves:
        image, _, meta = rasterize(**leaf, Ks=Ks.to(leaf["means"].device), **options)
        meta["means2d"].retain_grad()
        image.square().sum().backward()
        images.append(image.detach().cpu())
        metas.append(meta)
    assert (images[0] - images[1]).abs().max() <= 1e-4
    assert torch.equal(metas[0]["radii"], metas[1]["radii"].cpu())
    pairs = {name: [leaf[name].grad for leaf in leaves] for name in NAMES if leaves[0][name].grad is not None}
    pairs["means2d"] = [meta["means2d"].grad for meta in metas]
    for name, (ours, theirs) in pairs.items():
        assert (ours - theirs.cpu()).norm() <= 1e-3 * theirs.norm().cpu(), name
