"""Droplet3D on a tiny checkpoint: its denoiser against a loop written here, its planes by value, numbers of frames."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

from model import sampling
from model.droplet3d import with_shifted_noise
from model.video import VideoConfig, load_video_model
from tests.model.video_checkpoints import write_droplet3d

SIZE, FRAMES = 32, 13


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_droplet3d(tmp_path_factory.mktemp("tiny-droplet3d"))


def load(folder: Path, **settings: Any) -> Any:
    common = {"device": "cpu", "steps": 2, "refine_steps": 2, "frames": FRAMES, "size": SIZE, "guidance_scale": 6.0}
    return load_video_model(VideoConfig(model=str(folder), **{**common, **settings}))


def picture() -> np.ndarray:
    ramp = np.linspace(0, 255, SIZE)
    return np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((SIZE, SIZE), 90.0)], -1)[None].astype(
        np.uint8
    )


def test_planes_are_the_mask_and_the_image_before_black(folder: Path) -> None:
    model = load(folder)
    pixels = model.pixels(picture())
    with torch.no_grad():
        planes = model.condition_planes(pixels)
        video = torch.cat([pixels[0][None], -torch.ones(FRAMES - 1, 3, SIZE, SIZE)])
        latents = model.vae.encode(video.transpose(0, 1)[None]).latent_dist.mode()
    assert planes.shape == (1, 4, 5, 4, 4)
    assert planes[0, :, 0, 0, 0].tolist() == pytest.approx([0.7, 0, 0, 0])
    assert torch.allclose(planes[0, :, 1:], latents[0].transpose(0, 1) * 0.7, atol=1e-6)


def test_generation_equals_a_loop_over_the_librarys_classes(folder: Path) -> None:
    """Guidance, order of channels, rotary positions and solver, written out."""
    from diffusers import CogVideoXImageToVideoPipeline, DPMSolverMultistepScheduler
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid
    from transformers import AutoTokenizer, T5EncoderModel

    assert CogVideoXImageToVideoPipeline.__name__  # its grid is the one below
    model, image, prompt = load(folder), picture(), "a cup"
    template, negative = model.family.template, model.family.negative_prompt
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = T5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    texts = [negative, template.replace("{prompt}", prompt)]
    ids = tokenizer(texts, padding="max_length", max_length=450, truncation=True, return_tensors="pt").input_ids
    scheduler = DPMSolverMultistepScheduler.from_pretrained(
        folder / "scheduler", algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(2)
    crops = get_resize_crop_region_for_grid((2, 2), 45, 30)
    rotary = get_3d_rotary_pos_embed(embed_dim=16, crops_coords=crops, grid_size=(2, 2), temporal_size=4)
    latents = sampling.seeded_noise((4, 4, 4, 4), [7])
    with torch.no_grad():
        states = encoder(ids)[0]
        planes = model.condition_planes(model.pixels(image)).expand(2, -1, -1, -1, -1)
        for timestep in scheduler.timesteps:
            inputs = torch.cat([latents.expand(2, -1, -1, -1, -1), planes], 2)
            both = model.network(inputs, states, timestep.expand(2), image_rotary_emb=rotary).sample
            guided = both[:1] + 6.0 * (both[1:] - both[:1])
            latents = scheduler.step(guided, timestep, latents).prev_sample
        frames = model.vae.decode(latents.transpose(1, 2) / 0.7).sample[0][:, -FRAMES:]
    expected = ((frames.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 3, 0).numpy()
    ours = model.generate(image, [prompt], [7])[0]
    assert ours.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.abs(ours - expected).max() < 1.5
    assert model.num_evaluations == {"steps": 2, "forwards": 4}


@pytest.mark.parametrize("frames", [5, 9, 13, 85])
def test_as_many_frames_come_back_as_go_in(frames: int, folder: Path) -> None:
    """Also for an even number of latents, where the library's decoder makes four frames of the first one."""
    model = load(folder, frames=frames, size=16)
    video = torch.rand(frames, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = model.encode(video)
        assert latents.shape == model.latent_shape(16) == ((frames - 1) // 4 + 1, 4, 2, 2)
        assert model.decode(latents).shape == video.shape


def test_a_refinement_without_velocity_keeps_the_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(load(folder)), "_denoiser", lambda *_: lambda noisy, timestep: noisy * 0)
    monkeypatch.setattr(sampling, "seeded_noise", lambda shape, seeds, device="cpu": torch.zeros(len(seeds), *shape))
    model = load(folder, refine_strength=0.01, refine_steps=1)
    frames = np.repeat(picture()[:, None], FRAMES, 1)
    with torch.no_grad():
        kept = model._frames(model.encode(model.pixels(frames[0]))[None], model.pixels(picture()))
    assert np.abs(model.refine(frames, picture(), ["a"], [1]).astype(int) - kept).max() <= 3


def test_the_text_encoder_leaves_the_device_after_encoding(folder: Path) -> None:
    model, moves = load(folder, offload="parts"), []
    for name, part in model.parts.networks.items():
        move = part.to
        part.to = lambda *args, name=name, move=move: (moves.append((name, str(args[0]))), move(*args))[1]
    model.parts.device = torch.device("cpu", 0)
    model.generate(picture(), ["a cup"], [1])
    order = [name for name, device in moves if device == "cpu:0"]
    assert order == ["text_encoder", "vae", "transformer", "vae"]
    assert [name for name, device in moves if device == "cpu"] == ["text_encoder", "vae", "transformer"]


def test_another_cogvideox_is_refused(folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "transformer" / "config.json").read_text())
    (other / "transformer" / "config.json").write_text(json.dumps(config | {"in_channels": 8}))
    with pytest.raises(ValueError, match=r"takes 8 channels and Droplet3D 9, .* it is another CogVideoX"):
        load(other)


def test_a_tokenizer_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "tokenizer" / "tokenizer.json").unlink()
    (broken / "tokenizer" / "spiece.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be read, which needs the package sentencepiece"):
        load(broken)


@pytest.mark.parametrize("rescaled", [False, True])
def test_noise_is_shifted_as_cogvideox_shifts_it(rescaled: bool) -> None:
    theirs: Any = CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=rescaled)
    config = json.loads(theirs.to_json_string())
    found, wanted = sampling.dpm_solver(with_shifted_noise(config)).alphas_cumprod, theirs.alphas_cumprod
    assert torch.allclose(found[:-1], wanted[:-1].float(), rtol=1e-3)
    assert not torch.allclose(sampling.dpm_solver(config).alphas_cumprod[:-1], wanted[:-1].float(), rtol=0.1)
    assert with_shifted_noise({"_class_name": "DDIMScheduler"}) == {"_class_name": "DDIMScheduler"}
