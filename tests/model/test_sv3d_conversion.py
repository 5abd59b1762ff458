"""SV3D's published layout: names against rules written apart, numbers against other libraries, bad files by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from model.sv3d_conversion import convert
from model.sv3d_names import ENCODER, NETWORK, autoencoder_name, network_name
from tests.model.sv3d_files import published, tiny_parts, write_published

OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip


def forward_rule(name: str) -> str:
    """A name of the published network to diffusers', by the published order of blocks."""
    for theirs, ours in OUTSIDE.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    side, *numbers = re.match(r"(input_blocks|output_blocks|middle_block)\.(\d+)(?:\.(\d+))?", name).groups()  # type: ignore
    rest = name.split(".", 2 if side == "middle_block" else 3)[-1]
    first, second = int(numbers[0]), int(numbers[1] or 0) if side != "middle_block" else 0
    if side == "middle_block":
        place = "mid_block.attentions.0" if first == 1 else f"mid_block.resnets.{first // 2}"
    elif side == "input_blocks":
        block, layer = divmod(first - 1, 3)
        place = f"down_blocks.{block}." + ("resnets" if second == 0 else "attentions") + f".{layer}"
        if rest.startswith("op."):
            return f"down_blocks.{block}.downsamplers.0.conv.{rest[3:]}"
    else:
        block, layer = divmod(first, 3)
        place = f"up_blocks.{block}." + ("resnets" if second == 0 else "attentions") + f".{layer}"
        if rest.startswith("conv."):
            return f"up_blocks.{block}.upsamplers.0.{rest}"
    return f"{place}.{inside_attention(rest) if 'attentions' in place else inside_residual(rest)}"


def inside_residual(rest: str) -> str:
    if rest.startswith("time_mixer."):
        return rest
    part = "temporal_res_block" if rest.startswith("time_stack.") else "spatial_res_block"
    rest = rest.removeprefix("time_stack.")
    for theirs, ours in RESIDUAL.items():
        rest = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", rest)
    return f"{part}.{rest}"


def inside_attention(rest: str) -> str:
    rest = re.sub(r"^time_stack\.", "temporal_transformer_blocks.", rest)
    return re.sub(r"^time_pos_embed\.(\d)", lambda m: f"time_pos_embed.linear_{int(m[1]) // 2 + 1}", rest)


@pytest.mark.parametrize("numbers", [256, 1280])
def test_names_of_the_full_size_go_there_and_back(numbers: int) -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    with torch.device("meta"):
        network = UNetSpatioTemporalConditionModel(num_frames=21, projection_class_embeddings_input_dim=numbers)
    ours = list(network.state_dict())
    theirs = [network_name(name).removeprefix(NETWORK) for name in ours]
    assert len(set(theirs)) == len(ours) == 1428
    assert [forward_rule(name) for name in theirs] == ours
    counts = {"input_blocks.1.0.": 21, "input_blocks.1.1.": 57, "output_blocks.2.": 25}
    assert {prefix: sum(name.startswith(prefix) for name in theirs) for prefix in counts} == counts


def test_the_autoencoders_names_are_those_of_the_librarys_own_converter() -> None:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, use_post_quant_conv=False,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    answer = {}
    for number, (name, value) in enumerate(vae.state_dict().items()):
        tail = autoencoder_name(name, 4).removeprefix(ENCODER).removeprefix("first_stage_model.")
        answer[f"first_stage_model.{tail}"] = torch.full(value.shape[:1], float(number))
    assert len(answer) == 246
    converted = convert_ldm_vae_checkpoint(answer, dict(vae.config))
    assert {name: int(value.flatten()[0]) for name, value in converted.items()} == {
        name: number for number, name in enumerate(vae.state_dict())
    }


@pytest.mark.parametrize("posed", [False, True])
def test_a_converted_file_holds_the_same_weights_bit_by_bit(posed: bool, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

    parts = tiny_parts(posed)
    file = write_published(tmp_path / "sv3d.safetensors", published(parts))
    convert(file, tmp_path / "made", card="---\nlicense: other\nlicense_name: sv3d-nc-community\n---\n")
    classes: dict[str, Any] = {"unet": UNetSpatioTemporalConditionModel, "vae": AutoencoderKL,
                               "image_encoder": CLIPVisionModelWithProjection}  # fmt: skip
    for name, kind in classes.items():
        read = kind.from_pretrained(tmp_path / "made" / name, use_safetensors=True)
        given, found = dict(parts[name].named_parameters()), dict(read.named_parameters())
        assert given.keys() == found.keys()
        assert all(torch.equal(given[key], found[key]) for key in given)
    made = UNetSpatioTemporalConditionModel.load_config(tmp_path / "made" / "unet")
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in parts["unet"].config.items()}
    assert {key: made[key] for key in config if key[0] != "_"} == {k: v for k, v in config.items() if k[0] != "_"}
    assert not (tmp_path / "made.growing").exists()


def test_the_image_embedder_computes_what_open_clip_does(tmp_path: Path) -> None:
    from open_clip.transformer import VisionTransformer
    from transformers import CLIPVisionModelWithProjection

    torch.manual_seed(3)
    theirs = VisionTransformer(image_size=28, patch_size=14, width=160, layers=2, heads=2, mlp_ratio=0.4, output_dim=16)
    theirs.eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tensors = published(tiny_parts(False))
    prefix = "conditioner.embedders.0.open_clip.model.visual."
    tensors |= {prefix + name: value.contiguous() for name, value in theirs.state_dict().items()}
    convert(write_published(tmp_path / "file.safetensors", tensors), tmp_path / "made")
    ours = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "made" / "image_encoder").eval()
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(ours(pixels).image_embeds, theirs(pixels), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"has no model\.diffusion_model\.input_blocks\.1\.0\.in_layers\.0\.weight; it is incomplete"),
        ("extra", r"has model\.diffusion_model\.input_blocks\.99\.weight, which SV3D has not"),
        ("foreign", r"has lora\.weight, which SV3D has not"),
        ("shape", r"middle_block\.1\.norm\.weight in .* is \(7,\), which does not give mid_block\.attentions\.0"),
        ("other", r"has no model\.diffusion_model\.input_blocks\.0\.0\.weight; it is not SV3D"),
        ("decoder", r"has no first_stage_model\.decoder\.conv_in\.weight"),
        ("cut", "is no whole safetensors file"),
    ],
)
def test_bad_files_are_refused_by_name(change: str, message: str, tmp_path: Path) -> None:
    tensors = published(tiny_parts(False))
    if change == "missing":
        del tensors[f"{NETWORK}input_blocks.1.0.in_layers.0.weight"]
    elif change in ("extra", "foreign"):
        tensors[f"{NETWORK}input_blocks.99.weight" if change == "extra" else "lora.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors[f"{NETWORK}middle_block.1.norm.weight"] = torch.zeros(7)
    elif change == "other":
        tensors = {"unet.weight": torch.zeros(1)}
    elif change == "decoder":
        del tensors["first_stage_model.decoder.conv_in.weight"]
    file = write_published(tmp_path / "sv3d.safetensors", tensors)
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=message):
        convert(file, tmp_path / "made")
    assert not (tmp_path / "made").exists()
