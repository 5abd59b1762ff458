"""The solver against a denoiser whose answer is known."""

import pytest
import torch
from torch import Tensor

from model import sampling

COSINE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def oracle(scheduler: sampling.Scheduler, truth: Tensor) -> sampling.ModelFn:
    """A v-prediction model that knows the clean latents: v = (alpha x_t - x_0) / sigma."""

    def model_fn(latents: Tensor, timestep: Tensor) -> Tensor:
        index = int((scheduler.timesteps == timestep).nonzero()[0])
        ratio = scheduler.sigmas[index]
        alpha = 1 / (1 + ratio**2).sqrt()
        sigma = ratio * alpha
        return (alpha * latents - truth) / sigma

    return model_fn


def solvers() -> list[sampling.Scheduler]:
    return [sampling.dpm_solver(COSINE), sampling.edm_solver()]


@pytest.mark.parametrize("index", [0, 1])
def test_sampling_reaches_the_oracles_answer(index: int) -> None:
    scheduler, truth = solvers()[index], torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    noise = sampling.seeded_noise((4, 3, 3), [1, 2])
    result = sampling.sample(oracle(scheduler, truth), noise, scheduler, 20)
    assert torch.allclose(result, truth, atol=2e-3)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
def test_restart_reaches_the_oracles_answer(index: int, strength: float) -> None:
    scheduler, truth = solvers()[index], torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    noise = sampling.seeded_noise((4, 3, 3), [1, 2])
    result = sampling.restart(oracle(scheduler, truth), truth * 0.5, noise, scheduler, 10, strength)
    assert torch.allclose(result, truth, atol=2e-3)


def test_restart_runs_the_last_ten_of_twenty_trailing_steps() -> None:
    scheduler, seen = sampling.dpm_solver(COSINE), []

    def model_fn(latents: Tensor, timestep: Tensor) -> Tensor:
        seen.append(int(timestep))
        return torch.zeros_like(latents)

    clean = torch.ones(1, 4, 2, 2)
    sampling.restart(model_fn, clean, torch.zeros_like(clean), scheduler, 10, 0.5)
    full = sampling.dpm_solver(COSINE)
    full.set_timesteps(20)
    assert seen == full.timesteps[10:].tolist()
    assert full.timesteps[0] == 999
    assert 480 <= seen[0] <= 500


def test_noise_level_at_the_restart_is_about_the_signal_in_both_families() -> None:
    for scheduler, strength in zip(solvers(), (0.5, 0.29)):
        levels = []
        noise = sampling.seeded_noise((4, 64, 64), [3])

        def first(latents: Tensor, timestep: Tensor, levels: list[Tensor] = levels) -> Tensor:
            levels.append(latents.std())
            return torch.zeros_like(latents)

        sampling.restart(first, torch.zeros_like(noise), noise, scheduler, 10, strength)
        assert 0.65 < float(levels[0]) < 0.75  # sigma = alpha = 1/sqrt(2), as the network sees it


def test_a_restart_at_next_to_no_noise_returns_the_input() -> None:
    scheduler = sampling.dpm_solver(COSINE)
    clean = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    noise = sampling.seeded_noise((4, 4, 4), [1])
    result = sampling.restart(lambda x, t: torch.zeros_like(x), clean, noise, scheduler, 10, 0.01)
    assert (result - clean).abs().mean() < 0.03


def test_noise_depends_on_the_seed_alone() -> None:
    together = sampling.seeded_noise((3, 2), [7, 8, 9])
    assert torch.equal(together[1:2], sampling.seeded_noise((3, 2), [8]))
    assert not torch.equal(together[0], together[1])


def test_guidance_extrapolates_from_the_unconditional_half() -> None:
    model_fn = sampling.guided(lambda x, t: torch.cat([torch.full((2, 1), 1.0), torch.full((2, 1), 3.0)]), 4.0)
    assert model_fn(torch.zeros(2, 1), torch.tensor(0)).tolist() == [[9.0], [9.0]]


def test_schedulers_share_no_history() -> None:
    noise = sampling.seeded_noise((4, 2, 2), [1])
    first, second = sampling.dpm_solver(COSINE), sampling.dpm_solver(COSINE)
    alone = sampling.sample(lambda x, t: 0.1 * x, noise, sampling.dpm_solver(COSINE), 6)
    sampling.sample(lambda x, t: torch.ones_like(x), noise, first, 3)
    assert torch.equal(sampling.sample(lambda x, t: 0.1 * x, noise, second, 6), alone)
    assert torch.equal(sampling.sample(lambda x, t: 0.1 * x, noise, first, 6), alone)


@pytest.mark.parametrize(("strength", "message"), [(0.0, "(0, 1]"), (1.5, "(0, 1]"), (0.001, "raise the strength")])
def test_restart_refuses_impossible_strengths(strength: float, message: str) -> None:
    clean = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("]", r"\]")):
        sampling.restart(lambda x, t: x, clean, clean, sampling.dpm_solver(COSINE), 10, strength)
