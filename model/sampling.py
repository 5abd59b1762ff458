"""Sample latents by DPM-Solver++, from pure noise or from partial noise (3.4): `sample`, `restart`.

x0 clean latents, n standard normal noise, both [B,...]; c, u predictions with and without the condition.

Example:
    model_fn = guided(predict, scale=3.0)
    noise = seeded_noise((4, 16, 16), seeds=[0, 1])  # [2,4,16,16]
    clean = sample(model_fn, noise, dpm_solver(), steps=20)
    again = restart(model_fn, clean, noise, dpm_solver(), steps=10, strength=0.5)

Latents stay float32 from noise to decoder; models may run in any precision. The solver keeps the
last predictions of its batch, so every call makes a scheduler of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from torch import Tensor

Scheduler = DPMSolverMultistepScheduler | EDMDPMSolverMultistepScheduler
ModelFn = Callable[[Tensor, Tensor], Tensor]
"""(latents [B,...] scaled for the model, timestep []) -> the model's prediction [B,...]"""


def dpm_solver(config: Mapping[str, Any] | None = None, **overrides: Any) -> DPMSolverMultistepScheduler:
    """DPM-Solver++(2M) for a variance-preserving model (Lu et al. 2022).

    Timesteps are spaced "trailing", so that the first step starts at the schedule's very end: models
    with zero terminal SNR need it (Lin et al. 2024, "Common diffusion noise schedules", table 2).

    Args:
        config: a diffusers scheduler config whose betas and prediction type are kept.
        overrides: single entries that win over `config`, as ``prediction_type="v_prediction"``.
    """
    fixed = {"algorithm_type": "dpmsolver++", "solver_order": 2, "timestep_spacing": "trailing"}
    merged = {**(config or {}), **fixed, **overrides}
    return cast(DPMSolverMultistepScheduler, DPMSolverMultistepScheduler.from_config(merged))


def edm_solver() -> EDMDPMSolverMultistepScheduler:
    """The solver in the sigma range of Stable Video Diffusion (Karras et al. 2022 preconditioning)."""
    return EDMDPMSolverMultistepScheduler(
        sigma_min=0.002, sigma_max=700.0, sigma_data=1.0, prediction_type="v_prediction"
    )


def flow_solver(shift: float) -> DPMSolverMultistepScheduler:
    """DPM-Solver++(2M) for a flow from data to noise: x = (1 - sigma) x0 + sigma n, the model predicts n - x0.

    Args:
        shift: s > 0; sigma = s t / (1 + (s - 1) t) of even t in (0, 1], so that more steps fall to noise (Esser et
            al. 2024, "Scaling rectified flow transformers", eq. 23).
    """
    return dpm_solver(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift)


def seeded_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise [B,*shape], one generator a sample.

    A sample's noise depends on its seed alone, not on its neighbours in the batch nor on the device.
    """
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows).to(device)


def guided(predict: ModelFn, scale: float | Tensor) -> ModelFn:
    """Classifier-free guidance (Ho & Salimans 2022): u + scale * (c - u).

    Args:
        predict: takes the batch twice, [2B,...], and answers the unconditional half first.
        scale: a number, or a tensor that broadcasts over [B,...].
    """

    def model_fn(latents: Tensor, timestep: Tensor) -> Tensor:
        unconditional, conditional = predict(torch.cat([latents, latents]), timestep).float().chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return model_fn


def guided_in_turn(unconditional: ModelFn, conditional: ModelFn, scale: float) -> ModelFn:
    """Classifier-free guidance of two models, one after the other: half the memory of `guided`."""

    def model_fn(latents: Tensor, timestep: Tensor) -> Tensor:
        base = unconditional(latents, timestep)
        return base + scale * (conditional(latents, timestep) - base)

    return model_fn


def denoise(model_fn: ModelFn, latents: Tensor, scheduler: Scheduler, timesteps: Tensor) -> Tensor:
    """Step `latents` [B,...] through `timesteps` and return them clean, in float32.

    `latents` carry the noise of the first timestep; `scheduler` is fresh from `set_timesteps`.
    """
    for timestep in timesteps:
        prediction = model_fn(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False)[0]
    return latents


def sample(model_fn: ModelFn, noise: Tensor, scheduler: Scheduler, steps: int) -> Tensor:
    """Clean latents [B,...] from pure standard normal `noise` in `steps` steps."""
    scheduler.set_timesteps(steps, device=noise.device)
    return denoise(model_fn, noise * scheduler.init_noise_sigma, scheduler, scheduler.timesteps)


def restart(
    model_fn: ModelFn, clean: Tensor, noise: Tensor, scheduler: Scheduler, steps: int, strength: float = 0.5
) -> Tensor:
    """Noise `clean` latents [B,...] part of the way and denoise them in `steps` steps (3.4).

    A schedule of ``round(steps / strength)`` steps is entered `steps` before its end: 10 steps at
    strength 0.5 are the last 10 of 20.

    Args:
        noise: standard normal, shaped like `clean`.
        strength: share of the schedule that is run, in (0, 1].

    Raises:
        ValueError: if `strength` is out of range, or needs a finer schedule than the model was trained on.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}; it must lie in (0, 1]")
    total, limit = round(steps / strength), int(scheduler.config["num_train_timesteps"])
    if total > limit:
        raise ValueError(f"{steps} steps at strength {strength} need {total} levels of noise, more than {limit}; "
                         f"raise the strength to {steps / limit:g} or take fewer steps")  # fmt: skip
    scheduler.set_timesteps(total, device=clean.device)
    scheduler.set_begin_index(total - steps)
    timesteps = scheduler.timesteps[total - steps :]
    noisy = scheduler.add_noise(clean, noise, cast(Any, timesteps[:1].expand(clean.shape[0])))
    return denoise(model_fn, noisy, scheduler, timesteps)
