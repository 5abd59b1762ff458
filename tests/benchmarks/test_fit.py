import json

import pytest
import torch

from benchmarks.fit import PARTS, Options, gate, main, plain
from recon.config import DensifyConfig, FitConfig


def test_both_ways_are_fitted_and_their_parts_add_up(capsys):
    fit = FitConfig(iterations=12, num_points=200, init="hull", coarse_iterations=4, densify=DensifyConfig(every=6))
    main(Options(size=32, views=4, fit=fit))
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["assets"] == 1
    assert found["ratio"] == pytest.approx(found["after"]["seconds"] / found["before"]["seconds"], abs=1e-3)
    for way in ("before", "after"):
        parts = found[way]["parts"]
        assert set(parts) == {*PARTS, "rest"}
        assert sum(parts.values()) == pytest.approx(found[way]["seconds"], abs=0.01)
        assert all(parts[name] > 0 for name in ("render forward", "render backward", "perceptual forward", "MS-SSIM"))
    assert found["before"]["parts"]["perceptual backward"] > found["after"]["parts"]["perceptual backward"]
    assert found["after"]["psnr"] == pytest.approx(found["before"]["psnr"], abs=2)


def test_nothing_that_makes_it_fast_is_left_in_the_plain_fit():
    config = plain(FitConfig(coarse_iterations=100))
    assert (config.window, config.loss.fast, config.coarse_iterations, config.densify.prune_weight) == (
        False,
        False,
        0,
        0,
    )


def test_a_gate_tells_when_the_gradient_comes_by():
    passed = []
    values = torch.ones(3, requires_grad=True)
    opened = gate(values, lambda: passed.append(True))
    assert torch.equal(opened, values)
    assert not passed
    (2 * opened).sum().backward()
    assert passed == [True]
    assert torch.equal(values.grad, torch.full((3,), 2.0))
