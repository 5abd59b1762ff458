"""Variants differ from the full method in what they name, and in nothing else."""

from dataclasses import asdict

import pytest

from factory.evaluation.ablation.settings import FULL, VARIANTS, AblationConfig
from recon.config import DensifyConfig, FitConfig


def differences(config: AblationConfig, name: str) -> set[str]:
    def flat(value, path=""):
        if isinstance(value, dict):
            return {k: v for key, part in value.items() for k, v in flat(part, f"{path}.{key}".strip(".")).items()}
        return {path: value}

    full, other = (flat(asdict(config.plan(variant))) for variant in (FULL, name))
    return {key for key in full if full[key] != other[key]}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("no-lpips", {"fit.loss.lpips"}),
        ("rgb-for-lpips", {"fit.loss.lpips", "fit.loss.rgb"}),
        ("rgb-only", {"fit.loss.lpips", "fit.loss.ms_ssim", "fit.loss.mask", "fit.loss.rgb"}),
        ("no-mask", {"fit.loss.mask"}),
        ("nerf", {"nerf", "rounds"}),
        ("frames-4", {"frames", "rounds"}),
        ("rounds-0", {"rounds"}),
        ("mesh-extracted", {"mesh"}),
        ("mesh-optimised", {"mesh"}),
        ("densify-mcmc", {"fit.densify.method"}),
        ("pose-elevation", {"fit.pose.elevation"}),
        ("robust", {"fit.robust"}),
    ],
)
def test_a_variant_changes_what_it_names(name, changed):
    assert differences(AblationConfig(rounds=2), name) == changed


def test_variants_equal_to_the_full_method_are_left_out():
    assert "rounds-0" not in AblationConfig().chosen()
    assert "rounds-1" not in AblationConfig(rounds=1).chosen()
    assert "densify-paper" not in AblationConfig().chosen()
    mcmc = AblationConfig(fit=FitConfig(densify=DensifyConfig(method="mcmc"))).chosen()
    assert "densify-paper" in mcmc
    assert "densify-mcmc" not in mcmc
    assert AblationConfig(variants=("nerf",)).chosen() == [FULL, "nerf"]
    assert set(AblationConfig(rounds=2).chosen()) - {FULL} <= set(VARIANTS)


def test_rounds_lie_where_the_paper_has_them():
    assert AblationConfig(rounds=2).plan(FULL).rounds_at == (500, 1000)
    assert AblationConfig(rounds=1, fit=FitConfig(iterations=120)).plan(FULL).rounds_at == (50,)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"variants": ("no-lips",)}, "'no-lips' not found"), ({"mix": 0.0}, "mix"), ({"size": 8}, "size is 8"),
     ({"elevation_error_degrees": 60.0}, "elevation_error_degrees")],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        AblationConfig(**change)


def test_a_size_that_the_nerf_cannot_halve_is_refused():
    with pytest.raises(ValueError, match=r"no multiple of nerf\.size 64"):
        AblationConfig(size=96)
    assert AblationConfig(size=96, variants=("no-mask",)).size == 96
