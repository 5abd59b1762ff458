"""SV3D on tiny checkpoints converted from the published layout: against the library, its guidance, order and poses."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model import sampling
from model.stable_video import StableVideoModel
from model.sv3d import sinusoid
from model.sv3d_conversion import convert
from model.video import VideoConfig, load_video_model
from tests.model.sv3d_files import published, tiny_parts, write_published

SIZE = 32


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Converted tiny checkpoints; True: of SV3D_p."""
    root = tmp_path_factory.mktemp("tiny-sv3d")
    for posed in (False, True):
        convert(write_published(root / "file.safetensors", published(tiny_parts(posed))), root / str(posed))
    return {posed: root / str(posed) for posed in (False, True)}


def load(folder: Path, **settings: Any) -> Any:
    common = {"device": "cpu", "steps": 2, "refine_steps": 2, "size": SIZE, "guidance_scale": 1.0}
    return load_video_model(VideoConfig(model=str(folder), **{**common, **settings}))


def picture() -> np.ndarray:
    ramp = np.linspace(0, 255, SIZE)
    return np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((SIZE, SIZE), 90.0)], -1)[None].astype(
        np.uint8
    )


def test_sv3d_u_equals_the_librarys_pipeline(folders: dict[bool, Path]) -> None:
    """Its classes under `StableVideoDiffusionPipeline`, which must be given the one number and keeps its own order."""
    from diffusers import AutoencoderKL, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    model, image, folder = load(folders[False]), picture(), folders[False]
    model.noise_augmentation = 0.0
    pipeline = StableVideoDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),  # type: ignore[arg-type]
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder"),
        unet=UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet"),
        scheduler=sampling.edm_solver(),  # type: ignore[arg-type]
        feature_extractor=CLIPImageProcessor.from_pretrained(folder / "feature_extractor"),
    )
    pipeline.set_progress_bar_config(disable=True)
    numbers = model.added_numbers(1)
    pipeline._get_add_time_ids = lambda *args, **rest: numbers  # type: ignore[method-assign]
    embedding = model._image(model.pixels(image, SIZE))[:, 0]
    pipeline.image_encoder.forward = lambda _: type("Output", (), {"image_embeds": embedding})()
    noise = sampling.seeded_noise((21, 4, 4, 4), [7]).roll(-1, 1)
    native = pipeline(
        Image.fromarray(image[0]), height=SIZE, width=SIZE, num_frames=21, num_inference_steps=2,
        noise_aug_strength=0.0, latents=noise, output_type="np", min_guidance_scale=1.0, max_guidance_scale=1.0,
        decode_chunk_size=1,
    ).frames[0]  # fmt: skip
    ours = model.generate(image, ["unused"], [7])[0] / 255
    assert ours.shape == native.shape == (21, SIZE, SIZE, 3)
    assert np.abs(ours[1:] - native[:-1]).max() < 0.01
    assert np.array_equal(ours[0], image[0] / 255)  # the last native frame is the image's view


def test_numbers_and_guidance_of_the_release(folders: dict[bool, Path]) -> None:
    model = load(folders[False], guidance_scale=2.5)
    assert model.added_numbers(2).tolist() == pytest.approx(np.full((2, 1), 1e-5), rel=1e-3)
    scales = model.guidance_scales()
    assert scales[[0, 10, 20]].tolist() == [1.0, 2.5, 1.0]
    assert scales[5].item() == pytest.approx(1 + 1.5 * 0.5)
    assert torch.equal(scales, scales.flip(0))
    assert load(folders[False], guidance_scale=None).guidance == 2.5


def test_frame_0_is_the_last_native_frame(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    native = torch.arange(21.0).view(1, 21, 1, 1, 1)
    monkeypatch.setattr(StableVideoModel, "denoiser", lambda *_: lambda noisy, timestep: noisy * 0 + native)
    model = load(folders[False])
    predict = model.condition(model.pixels(picture(), SIZE), [""], [1]).predict
    given = torch.zeros(1, 21, 4, 4, 4)
    assert predict(given, torch.tensor(0.0))[0, :, 0, 0, 0].tolist() == [20, *range(20)]
    monkeypatch.setattr(StableVideoModel, "denoiser", lambda *_: lambda noisy, timestep: noisy)
    assert torch.equal(
        predict(native.roll(1, 1).expand_as(given), torch.tensor(0.0))[0, :, 0, 0, 0], native.flatten().roll(1)
    )


def test_a_refinement_keeps_order_and_image(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, a network that answers no velocity leaves what it is given."""
    monkeypatch.setattr(sampling, "seeded_noise", lambda shape, seeds, device="cpu": torch.zeros(len(seeds), *shape))
    monkeypatch.setattr(StableVideoModel, "denoiser", lambda *_: lambda noisy, timestep: noisy * 0)
    model, image = load(folders[False], refine_strength=0.01, refine_steps=1), picture()
    frames = np.stack([np.full((SIZE, SIZE, 3), 10 * k, np.uint8) for k in range(21)])[None]
    with torch.no_grad():
        kept = model._frames(model.encode(model.pixels(frames[0]))[None], model.pixels(image))
    refined = model.refine(frames, image, [""], [3])
    assert np.abs(refined[0].astype(int) - kept[0]).max() <= 1
    assert np.array_equal(refined[:, 0], image)
    with pytest.raises(ValueError, match="the video has 16 frames and the model's view plan 21 views"):
        model.refine(frames[:, :16], image, [""], [3])


def test_images_of_another_size_are_brought_to_the_models(folders: dict[bool, Path]) -> None:
    model = load(folders[False], steps=1)
    large = picture().repeat(2, 1).repeat(2, 2)
    small = model.generate(large, [""], [1])
    assert small.shape == (1, 21, SIZE, SIZE, 3)
    refined = model.refine(small.repeat(2, 2).repeat(2, 3), large, [""], [1])
    assert refined.shape == small.shape


def test_sinusoids_are_the_networks_own() -> None:
    from diffusers.models.embeddings import Timesteps

    values = torch.tensor([0.0, 1e-5, 1.2, 6.1])
    assert torch.equal(sinusoid(values, 512), Timesteps(512, True, 0)(values))
    half = torch.arange(256) / 256
    assert torch.allclose(sinusoid(values, 512)[2, :256], torch.cos(1.2 * 10000.0**-half), atol=1e-5)


def test_sv3d_p_tells_every_frames_own_pose(folders: dict[bool, Path]) -> None:
    model = load(folders[True], elevation=15.0)
    vectors = model._pose_vectors()
    assert vectors.shape == (21, 1280)
    assert torch.equal(vectors[:, :256], sinusoid(torch.full((21,), 1e-5), 256))
    assert torch.allclose(vectors[:, 256:768], sinusoid(torch.full((21,), math.radians(75)), 512))
    azimuths = torch.tensor([2 * math.pi * (k + 1) / 21 for k in range(20)] + [0.0])  # of native frames, the last is 0
    assert torch.allclose(vectors[:, 768:], sinusoid(azimuths, 512), atol=1e-5)


class Told(nn.Module):
    """Answers one vector for every sample, whatever numbers it is given."""

    def __init__(self, vector: torch.Tensor) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.vector.expand(len(numbers) // 5, -1)


def test_equal_poses_are_the_stock_forward_with_that_vector(folders: dict[bool, Path]) -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    model = load(folders[True], elevation=0.0)
    stock = UNetSpatioTemporalConditionModel.from_pretrained(folders[True] / "unet").eval()
    vector = torch.randn(1280, generator=torch.Generator().manual_seed(1))
    stock.add_time_proj = Told(vector)  # type: ignore[assignment]
    latents = torch.randn(2, 21, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    image, timestep = torch.randn(2, 1, 16), torch.tensor(0.3)
    with torch.no_grad():
        expected = stock(latents, timestep, image, added_time_ids=torch.zeros(2, 5)).sample
        numbers = model.added_numbers(2)
        model.frame_vectors.show(vector.expand(21, -1), 2)
        same = model.network(latents, timestep, image, added_time_ids=numbers).sample
        assert torch.allclose(same, expected, atol=1e-5)
        seen: list[torch.Tensor] = []
        vectors = torch.randn(21, 1280)
        model.frame_vectors.show(vectors, 2)
        block = model.network.down_blocks[0].resnets[0].spatial_res_block.time_emb_proj
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        other = model.network(latents, timestep, image, added_time_ids=numbers).sample
        times = stock.time_embedding(stock.time_proj(timestep.expand(2)))
        each = times[:, None] + stock.add_embedding(vectors)[None]
    assert not torch.allclose(other, expected, atol=1e-3)
    assert torch.allclose(seen[0], nn.functional.silu(each).flatten(0, 1), atol=1e-5)


def test_sv3d_p_generates_by_elevation(folders: dict[bool, Path]) -> None:
    model = load(folders[True], elevation=0.0, steps=1)
    low = model.generate(picture(), [""], [1])
    model.views = replace(model.views, elevation=math.radians(30))
    high = model.generate(picture(), [""], [1])
    assert low.shape == (1, 21, SIZE, SIZE, 3)
    assert np.abs(low.astype(int) - high).max() > 0
    with pytest.raises(ValueError, match=r"video\.elevation is 5\.0 and SV3D_u takes none"):
        load(folders[False], elevation=5.0)
