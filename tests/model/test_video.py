"""I2VGen-XL and Stable Video Diffusion as turntable models, on tiny random checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import sampling
from model.video import VideoConfig, load_video_model

FAMILIES = ["tiny_i2vgen_xl", "tiny_stable_video"]
PROMPTS = ["a red car", "a blue cup"]


def load(folder: Path, **settings: Any) -> Any:
    return load_video_model(VideoConfig(model=str(folder), device="cpu", **{"steps": 3, "refine_steps": 2, **settings}))


def pictures(count: int, channels: int = 3, size: int = 16) -> np.ndarray:
    """Smooth pictures uint8 [count,size,size,channels]."""
    ramp = np.linspace(0, 255, size)
    rows = [np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((size, size), 40.0 * k)], -1)
            for k in range(count)]  # fmt: skip
    alpha = np.full((count, size, size, 1), 255.0)
    return np.concatenate([np.stack(rows), alpha], -1)[..., :channels].astype(np.uint8)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_frames_follow_their_own_sample_alone(folder: Path) -> None:
    model, images = load(folder), pictures(2)
    frames = model.generate(images, PROMPTS, [1, 2])
    assert frames.dtype == np.uint8
    assert frames.shape == (2, 16, 16, 16, 3)
    assert np.array_equal(frames, model.generate(images, PROMPTS, [1, 2]))
    alone = model.generate(images[1:], PROMPTS[1:], [2])
    assert np.abs(alone[0].astype(int) - frames[1]).max() <= 1
    other = model.generate(images, PROMPTS, [1, 3])
    assert np.abs(other[0].astype(int) - frames[0]).max() <= 1
    assert np.abs(other[1].astype(int) - frames[1]).mean() > 3


def test_refinement_follows_its_own_sample_alone(folder: Path) -> None:
    model, images = load(folder), pictures(2)
    frames = np.repeat(images[:, None], 16, 1)
    refined = model.refine(frames, images, PROMPTS, [1, 2])
    assert refined.dtype == np.uint8
    assert refined.shape == frames.shape
    assert np.array_equal(refined, model.refine(frames, images, PROMPTS, [1, 2]))
    alone = model.refine(frames[1:], images[1:], PROMPTS[1:], [2])
    assert np.abs(alone[0].astype(int) - refined[1]).max() <= 1


def test_a_refinement_at_next_to_no_noise_keeps_the_frames(folder: Path) -> None:
    images = pictures(1)
    frames = np.repeat(images[:, None], 16, 1)

    def moved(strength: float) -> float:
        model = load(folder, refine_strength=strength, refine_steps=5, guidance_scale=1.0)
        with torch.inference_mode():  # the random autoencoder's own loss is no part of the question
            latents = model.encode(model.pixels(frames[0]))
            kept = model._frames(latents[None], model.pixels(images))
        return float(np.abs(model.refine(frames, images, ["a"], [1]).astype(int) - kept).mean())

    assert moved(0.006) < 4
    assert moved(1.0) > 5 * moved(0.006)


def test_evaluations_are_counted(folder: Path) -> None:
    images = pictures(2)
    frames = np.repeat(images[:, None], 16, 1)
    model = load(folder, guidance_scale=2.0)
    model.generate(images, PROMPTS, [1, 2])
    assert model.num_evaluations == {"steps": 3, "forwards": 6}
    model.refine(frames, images, PROMPTS, [1, 2])
    assert model.num_evaluations == {"steps": 2, "forwards": 4}
    model = load(folder, guidance_scale=1.0)
    model.generate(images, PROMPTS, [1, 2])
    assert model.num_evaluations == {"steps": 3, "forwards": 3}


def test_image_and_prompt_matter_where_the_family_has_them(tiny_i2vgen_xl: Path, tiny_stable_video: Path) -> None:
    for folder, reads_text in ((tiny_i2vgen_xl, True), (tiny_stable_video, False)):
        model, images = load(folder, guidance_scale=9.0), pictures(2)
        first, second = (model.generate(image[None], ["cup"], [1]).astype(int) for image in images)
        assert np.abs(first - second).max() > 0
        assert bool(np.abs(first - model.generate(images[:1], ["zebra 9"], [1])).max() > 0) == reads_text


def test_alpha_is_dropped_since_frames_are_over_white(folder: Path) -> None:
    model, rgba = load(folder), pictures(1, channels=4)
    assert np.array_equal(model.generate(rgba, ["a"], [1]), model.generate(rgba[..., :3], ["a"], [1]))


def test_i2vgen_xl_equals_the_released_pipeline(tiny_i2vgen_xl: Path) -> None:
    from diffusers import I2VGenXLPipeline
    from PIL import Image

    model, image = load(tiny_i2vgen_xl, guidance_scale=4.0), pictures(1)
    pipeline = I2VGenXLPipeline.from_pretrained(tiny_i2vgen_xl, use_safetensors=True)
    pipeline.scheduler = sampling.dpm_solver(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline._guidance_scale = 1.0
    states = pipeline.text_encoder(
        pipeline.tokenizer([PROMPTS[0], ""], padding="max_length", return_tensors="pt").input_ids,
        output_hidden_states=True,
    ).hidden_states[-2]
    text = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder).final_layer_norm(states)
    pipeline.vae.encode = mode_of(pipeline.vae.encode)
    noise = sampling.seeded_noise((16, 4, 8, 8), [7])
    frames = pipeline(
        image=Image.fromarray(image[0]), prompt_embeds=text[:1], negative_prompt_embeds=text[1:], height=16, width=16,
        num_inference_steps=3, guidance_scale=4.0, latents=noise.transpose(1, 2), output_type="np",
    ).frames[0]  # fmt: skip
    ours = model.generate(image, PROMPTS[:1], [7])[0] / 255
    assert np.abs(ours - frames).max() < 0.01


def mode_of(encode: Any) -> Any:
    """The encoder with its distribution's mode in the place of a sample."""

    def encode_mode(pixels: torch.Tensor) -> Any:
        output = encode(pixels)
        output.latent_dist.sample = output.latent_dist.mode
        return output

    return encode_mode


def test_stable_video_equals_the_released_pipeline(tiny_stable_video: Path) -> None:
    from diffusers import StableVideoDiffusionPipeline
    from PIL import Image

    image = pictures(1)
    model = load(tiny_stable_video, guidance_scale=3.0, decode_chunk=5)
    model.noise_augmentation = 0.0
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tiny_stable_video, use_safetensors=True)
    pipeline.scheduler = sampling.edm_solver()
    pipeline.set_progress_bar_config(disable=True)
    pixels = model.pixels(image)
    embedding = model._image(pixels)[:, 0]
    encoder = pipeline.image_encoder
    pipeline.image_encoder.forward = lambda _: type("Output", (), {"image_embeds": embedding})()  # 224 px fixed there
    assert encoder is pipeline.image_encoder
    frames = pipeline(
        Image.fromarray(image[0]), height=16, width=16, num_frames=16, num_inference_steps=3, noise_aug_strength=0.0,
        latents=sampling.seeded_noise((16, 4, 8, 8), [7]) * pipeline.scheduler.init_noise_sigma
        / pipeline.scheduler.init_noise_sigma, output_type="np", decode_chunk_size=5,
    ).frames[0]  # fmt: skip
    ours = model.generate(image, PROMPTS[:1], [7])[0] / 255
    assert np.abs(ours - frames).max() < 0.01


@pytest.mark.parametrize(
    ("images", "frames", "message"),
    [
        (pictures(2)[:, :12], None, "must be square"),
        (pictures(2, size=15), None, "a multiple of 2 a side"),
        (pictures(2).astype(np.float32), None, "expected uint8"),
        (pictures(1), None, "2 prompts but 1 images"),
        (
            pictures(2),
            np.zeros((2, 8, 16, 16, 3), np.uint8),
            "the video has 8 frames and the model's view plan 16 views",
        ),
    ],
)
def test_bad_batches_are_refused(
    tiny_i2vgen_xl: Path, images: np.ndarray, frames: np.ndarray | None, message: str
) -> None:
    model = load(tiny_i2vgen_xl)
    columns = [images] if frames is None else [frames, images]
    with pytest.raises(ValueError, match=message):
        (model.refine if len(columns) == 2 else model.generate)(*columns, PROMPTS, [1, 2])


def test_incomplete_and_foreign_folders_are_named(tiny_sdxl: Path, tiny_i2vgen_xl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a StableDiffusionXLPipeline; a turntable model is one of"):
        load(tiny_sdxl)
    broken = shutil.copytree(tiny_i2vgen_xl, tmp_path / "broken")
    shutil.rmtree(broken / "image_encoder")
    with pytest.raises(ValueError, match=r"image_encoder.config\.json is missing"):
        load(broken)


def test_the_checkpoint_is_identified(tiny_i2vgen_xl: Path, tiny_stable_video: Path) -> None:
    first, second = load(tiny_i2vgen_xl), load(tiny_stable_video)
    assert first.revision.startswith("sha256:")
    assert first.revision != second.revision
    assert (first.license, second.license) == ("mit", "unknown")


@pytest.mark.parametrize("strength", [0.0, 1.2])
def test_bad_strengths_name_the_limit(strength: float) -> None:
    with pytest.raises(ValueError, match=r"video\.refine_strength is .*; it must lie in \(0, 1\]"):
        VideoConfig(refine_strength=strength)


def test_half_precision_stays_near_single(folder: Path) -> None:
    images = pictures(1)
    single = load(folder).generate(images, ["a"], [1]).astype(int)
    half = load(folder, dtype="bfloat16").generate(images, ["a"], [1])
    assert np.abs(half - single).mean() < 6
