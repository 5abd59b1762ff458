import pytest
import torch
from torch.nn import Parameter

from recon.config import DensifyConfig
from recon.densify import accumulate, append, densify, growth, halves, new_statistics, offsets, select


def scene(count: int = 10) -> tuple[dict[str, Parameter], torch.optim.Adam]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh0": (1, 3)}
    params = {name: Parameter(torch.randn(count, *shape, generator=generator)) for name, shape in shapes.items()}
    params["scales"] = Parameter(params["scales"].detach() * 0.1 - 5)
    params["opacities"] = Parameter(torch.ones(count))
    optimizer = torch.optim.Adam([{"name": n, "params": [p], "lr": 0.0} for n, p in params.items()], fused=True)
    weight = torch.arange(1.0, count + 1)
    sum((p.flatten(1).sum(1) if p.dim() > 1 else p) @ weight for p in params.values()).backward()
    optimizer.step()
    return params, optimizer


def moments(optimizer: torch.optim.Adam, name: str) -> torch.Tensor:
    (group,) = [group for group in optimizer.param_groups if group["name"] == name]
    return optimizer.state[group["params"][0]]["exp_avg"]


def seen_by_all(count: int, gradient: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    statistics = new_statistics(count, torch.device("cpu"))
    statistics["seen"] += 1
    statistics["gradient"] += torch.zeros(count) if gradient is None else gradient
    return statistics


def test_select_keeps_rows_together_with_their_moments():
    params, optimizer = scene()
    before = {name: (value.detach().clone(), moments(optimizer, name).clone()) for name, value in params.items()}
    index = torch.tensor([7, 2, 3])
    select(params, optimizer, index)
    for name, (value, moment) in before.items():
        assert torch.equal(params[name], value[index])
        assert torch.equal(moments(optimizer, name), moment[index])
        assert moment[index].any()


def test_append_starts_new_rows_with_zero_moments_and_the_optimizer_moves_them():
    params, optimizer = scene()
    append(params, optimizer, {name: value.detach()[:2] for name, value in params.items()})
    assert len(params["means"]) == 12
    assert not moments(optimizer, "means")[10:].any()
    assert moments(optimizer, "means")[:10].any()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    before = params["means"].detach().clone()
    params["means"].sum().backward()
    optimizer.step()
    assert (params["means"] != before).all()


@pytest.mark.parametrize(
    ("name", "value"), [("opacities", -7.0), ("scales", 0.0)], ids=["too faint", "longer than the limit"]
)
def test_faint_and_long_gaussians_are_pruned(name, value):
    params, optimizer = scene()
    with torch.no_grad():
        params[name][4] = value
    survivor = params["means"].detach()[5].clone()
    counts = densify(params, optimizer, seen_by_all(10), DensifyConfig(), torch.Generator(), grow=False)
    assert counts == {"pruned": 1, "cloned": 0, "split": 0}
    assert torch.equal(params["means"][4], survivor)


def test_hidden_gaussians_are_pruned_only_if_asked():
    for prune_hidden, left in ((True, 3), (False, 10)):
        params, optimizer = scene()
        statistics = seen_by_all(10)
        statistics["seen"][:7] = 0
        config = DensifyConfig(prune_hidden=prune_hidden)
        densify(params, optimizer, statistics, config, torch.Generator(), grow=False)
        assert len(params["means"]) == left


def test_one_gaussian_survives_when_all_should_go():
    params, optimizer = scene()
    statistics = new_statistics(10, torch.device("cpu"))
    densify(params, optimizer, statistics, DensifyConfig(), torch.Generator())
    assert len(params["means"]) >= 1


def test_small_gaussians_are_cloned_and_long_ones_split_where_the_gradient_is_large():
    params, optimizer = scene()
    with torch.no_grad():
        params["scales"][1, 0] = torch.tensor(0.1).log()
    means = params["means"].detach().clone()
    gradient = torch.zeros(10)
    gradient[[1, 6]] = 5.0
    config = DensifyConfig(grow_share=0.2)
    counts = densify(params, optimizer, seen_by_all(10, gradient), config, torch.Generator().manual_seed(1))
    assert counts == {"pruned": 0, "cloned": 1, "split": 1}
    assert len(params["means"]) == 12
    kept = [row for row in range(10) if row != 1]
    assert torch.equal(params["means"][:9], means[kept])
    assert (params["means"][9] - means[6]).norm() < 0.1
    assert (params["means"][10:] - means[1]).norm(dim=1).max() < 0.5
    assert params["scales"][10:].exp().amax(1).tolist() == pytest.approx([0.1 / 1.6] * 2, rel=1e-4)


def test_growth_takes_the_largest_within_share_threshold_and_cap():
    gradient = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.0])
    assert growth(gradient, DensifyConfig(grow_share=0.4)).tolist() == [1, 3]
    assert growth(gradient, DensifyConfig(grow_share=1.0, grow_gradient=0.6)).tolist() == [1, 3]
    assert growth(gradient, DensifyConfig(grow_share=1.0, max_gaussians=6)).tolist() == [1]
    assert growth(gradient, DensifyConfig(grow_share=1.0, max_gaussians=3)).tolist() == []


def test_accumulated_gradient_does_not_depend_on_resolution_or_batch():
    one, other = (new_statistics(1, torch.device("cpu")) for _ in range(2))
    accumulate(one, torch.tensor([[[3.0, 4.0]]]), size=100)
    accumulate(other, torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]]) / 2 / 2, size=200)
    assert one["gradient"].item() == 250
    assert (other["gradient"] / other["seen"]).item() == 250
    assert other["seen"].item() == 2


def test_offsets_follow_each_gaussians_own_distribution():
    count = 20_000
    angle = torch.tensor(torch.pi / 4)
    quats = torch.tensor([[angle.cos(), 0.0, 0.0, angle.sin()]]).expand(count, 4)  # x to y
    scales = torch.tensor([[0.5, 0.1, 0.02]]).log().expand(count, 3)
    params = {"quats": Parameter(3 * quats), "scales": Parameter(scales)}
    found = offsets(params, torch.arange(count), torch.Generator().manual_seed(0))
    assert found.std(0).tolist() == pytest.approx([0.1, 0.5, 0.02], rel=0.05)
    assert halves({**params, "means": Parameter(torch.zeros(count, 3))}, torch.arange(2), torch.Generator())[
        "means"
    ].shape == (4, 3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"every": 0}, "every"), ({"until": 1.5}, "until"), ({"split_scale": 0.0}, "split_scale")],
)
def test_bad_settings_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DensifyConfig(**kwargs)


@pytest.mark.parametrize(
    "settings",
    [{"prune_opacity": 1.0}, {"split_scale": float("nan")}, {"prune_scale": 0.0}, {"grow_gradient": -1.0},
     {"noise": float("inf")}],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DensifyConfig(**settings)


def test_gaussians_that_no_view_needs_go():
    params, optimizer = scene()
    statistics, gradient, weights = seen_by_all(10), torch.ones(2, 10, 2), torch.full((2, 10), 0.2)
    weights[:, :3] = 0.004
    accumulate(statistics, gradient, 64, weights)
    weights[1, 2] = 0.5  # a later view needs the third
    accumulate(statistics, gradient, 64, weights)
    means = params["means"].detach().clone()
    counts = densify(params, optimizer, statistics, DensifyConfig(prune_weight=0.005), torch.Generator(), grow=False)
    assert counts["pruned"] == 2
    assert torch.equal(params["means"], means[2:])


def test_without_weights_none_goes_for_them():
    params, optimizer = scene()
    counts = densify(params, optimizer, seen_by_all(10), DensifyConfig(prune_weight=0.9), torch.Generator(), grow=False)
    assert counts["pruned"] == 0
