"""Wan image-to-video on tiny checkpoints: equal to the released pipeline under the same solver and noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import sampling
from model.video import VideoConfig, load_video_model
from model.wan import WanVideoModel
from tests.model.video_checkpoints import write_wan

KINDS = ("2.1", "2.2", "5b")
PROMPT = "a red cup"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny-wan")
    return {kind: write_wan(root / kind, kind) for kind in KINDS}


def load(folder: Path, **settings: Any) -> Any:
    common = {"device": "cpu", "steps": 3, "refine_steps": 2, "frames": 9, "guidance_scale": 4.0}
    return load_video_model(VideoConfig(model=str(folder), **{**common, **settings}))


def picture(size: int = 32) -> np.ndarray:
    ramp = np.linspace(0, 255, size)
    return np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((size, size), 90.0)], -1)[None].astype(
        np.uint8
    )


@pytest.mark.parametrize("kind", KINDS)
def test_frames_equal_the_released_pipelines(kind: str, folders: dict[str, Path]) -> None:
    from diffusers import WanImageToVideoPipeline
    from PIL import Image

    model, image = load(folders[kind], negative_prompt="bad"), picture()
    pipeline = WanImageToVideoPipeline.from_pretrained(folders[kind])
    pipeline.scheduler = sampling.flow_solver(3.0)  # type: ignore[assignment]
    pipeline.set_progress_bar_config(disable=True)
    noise = sampling.seeded_noise((3, 16, 4, 4), [7])
    if kind == "2.1":  # the library's own way to the pixels goes through PIL
        tokens = model._image_tokens(model.pixels(image))
        pipeline.encode_image = lambda *args, **rest: tokens  # type: ignore[method-assign]
    frames = pipeline(
        image=Image.fromarray(image[0]), prompt=PROMPT, negative_prompt="bad", height=32, width=32, num_frames=9,
        num_inference_steps=3, guidance_scale=4.0, latents=noise.transpose(1, 2), output_type="np",
    ).frames[0]  # fmt: skip
    ours = model.generate(image, [PROMPT], [7])[0] / 255
    assert ours.shape == frames.shape == (9, 32, 32, 3)
    assert np.abs(ours - frames).max() < 0.01
    forwards = model.num_evaluations
    assert forwards == {"steps": 3, "forwards": 6}


def test_the_second_network_takes_the_low_noise(folders: dict[str, Path]) -> None:
    model = load(folders["2.2"])
    assert [model._network_at(torch.tensor(t)) for t in (999, 900, 899, 1)] == ["transformer"] * 2 + [
        "transformer_2"
    ] * 2
    assert load(folders["2.1"])._network_at(torch.tensor(1)) == "transformer"


def test_text_behind_the_prompt_is_zero_and_spaces_do_not_count(folders: dict[str, Path]) -> None:
    model = load(folders["5b"])
    states = model._text(["a b", " a   b\n"])
    assert states.shape == (2, 512, 16)
    length = int((states[0].abs().sum(-1) > 0).sum())
    assert length < 10
    assert torch.equal(states[0], states[1])


def sigma_at(model: Any) -> float:
    """The noise level that a refinement of two steps at strength 0.01 begins at."""
    scheduler = model.scheduler()
    scheduler.set_timesteps(200)
    return float(scheduler.sigmas[198])


@pytest.mark.parametrize("kind", ["2.1", "5b"])
def test_refinement_without_velocity_keeps_the_frames(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WanVideoModel, "_forward", lambda self, inputs, *_: inputs[:, :, :16] * 0)
    monkeypatch.setattr(sampling, "seeded_noise", lambda shape, seeds, device="cpu": torch.zeros(len(seeds), *shape))
    model, image = load(folders[kind], refine_strength=0.01), picture()
    frames = np.repeat(image[:, None], 9, 1)
    frames[:, 4:] //= 2
    with torch.no_grad():
        latents = model.encode(model.pixels(frames[0]))
        noised = latents * (1 - sigma_at(model))
        if kind == "5b":
            noised[:1] = model._first_latents(model.pixels(image))[0]
        kept = model._frames(noised[None], model.pixels(image))
    assert np.abs(model.refine(frames, image, [PROMPT], [1]).astype(int) - kept).max() <= 1


@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0])
def test_restart_begins_at_as_much_noise_as_signal(shift: float) -> None:
    """Against the closed form of the shift, and a flow that is known: constant data has velocity (x - c) / sigma."""
    scheduler, strength, steps = sampling.flow_solver(shift), 1 / (shift + 1), 10
    total = round(steps / strength)
    scheduler.set_timesteps(total)
    even = torch.linspace(0.999, 0, total + 1)[:-1]
    assert torch.allclose(scheduler.sigmas[:-1], shift * even / (1 + (shift - 1) * even), atol=1e-3)
    truth, seen = torch.full((1, 2, 3, 3), 0.7), []

    def velocity(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        sigma = scheduler.sigmas[int((scheduler.timesteps == timestep).nonzero()[0])]
        seen.append(float(sigma))
        return (latents - truth) / sigma

    noise = sampling.seeded_noise((2, 3, 3), [1])
    made = sampling.restart(velocity, truth, noise, scheduler, steps, strength)
    assert torch.allclose(made, truth, atol=1e-3)
    assert seen[0] == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(sampling.sample(velocity, noise, scheduler, 20), truth, atol=1e-3)


def test_strength_and_shift_follow_the_checkpoint(folders: dict[str, Path]) -> None:
    model = load(folders["2.1"])
    assert (model.shift, model.strength) == (3.0, 0.25)
    assert load(folders["2.1"], flow_shift=5.0).strength == pytest.approx(1 / 6)
    assert load(folders["2.1"], flow_shift=5.0, refine_strength=0.3).strength == 0.3


def test_sizes_that_the_patches_do_not_divide_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"images are 40 pixels a side; .* a multiple of 16 a side: set video.size to 32"
    ):
        load(folders["2.1"]).generate(picture(40), [PROMPT], [1])


@pytest.mark.parametrize(("offload", "storage"), [("parts", "same"), ("layers", "same"), ("none", "float8")])
def test_less_memory_gives_the_same_frames(offload: str, storage: str, folders: dict[str, Path]) -> None:
    image = picture()
    plain = load(folders["2.2"]).generate(image, [PROMPT], [7]).astype(int)
    model = load(folders["2.2"], offload=offload, storage=storage)
    frames = model.generate(image, [PROMPT], [7])
    if storage == "same":
        assert np.abs(frames - plain).max() <= 1
        return
    kept = [p for name, p in model.network.named_parameters() if name.endswith("to_q.weight")]
    assert {p.dtype for p in kept} == {torch.float8_e4m3fn}
    assert model.dtype == torch.float32
    assert np.abs(frames - plain).mean() < 10


def test_a_template_and_the_prompt_matter(folders: dict[str, Path]) -> None:
    image = picture()
    templated = load(folders["5b"], template="{prompt} turns").generate(image, ["a cup"], [1])
    assert np.array_equal(templated, load(folders["5b"]).generate(image, ["a cup turns"], [1]))
