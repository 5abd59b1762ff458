"""Tiny random SV3D checkpoints in the layout of the published files."""

from pathlib import Path
from typing import Any

import torch

from recon.torchvision_shim import import_torchvision

import_torchvision()  # before diffusers and transformers


def tiny_parts(posed: bool) -> dict[str, Any]:
    """Network, autoencoder and image embedder in diffusers' classes, small, with SV3D's four resolutions."""
    from diffusers import AutoencoderKL, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(int(posed))
    return {
        "unet": UNetSpatioTemporalConditionModel(
            sample_size=72, num_frames=21, block_out_channels=(32, 64, 128, 128), cross_attention_dim=16,
            num_attention_heads=(1, 1, 2, 2), projection_class_embeddings_input_dim=1280 if posed else 256,
        ).eval(),
        "vae": AutoencoderKL(
            block_out_channels=(32, 64, 128, 128), layers_per_block=2, latent_channels=4, use_post_quant_conv=False,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval(),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=160, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                             image_size=28, patch_size=14, projection_dim=16, hidden_act="gelu")
        ).eval(),
    }  # fmt: skip


def published(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of the parts under the names, and in the shapes, of the published file."""
    from model.sv3d_names import autoencoder_name, embedder_name, network_name

    tensors = {network_name(name): value for name, value in parts["unet"].state_dict().items()}
    for name, value in parts["vae"].state_dict().items():
        linear = ".attentions." in name and name.endswith(".weight") and "group_norm" not in name
        tensors[autoencoder_name(name, 4)] = value[:, :, None, None] if linear else value
    shared: dict[str, dict[int, torch.Tensor]] = {}
    for name, value in parts["image_encoder"].named_parameters():
        source, third = embedder_name(name)
        if third is None:
            tensors[source] = value.detach().T if name == "visual_projection.weight" else value.detach()
        else:
            shared.setdefault(source, {})[third] = value.detach()
    tensors |= {name: torch.cat([thirds[k] for k in range(3)]) for name, thirds in shared.items()}
    leftovers = ("conditioner.embedders.0.open_clip.model.token_embedding.weight", "denoiser.sigmas")
    return {name: value.contiguous() for name, value in tensors.items()} | {name: torch.zeros(2) for name in leftovers}


def write_published(file: Path, tensors: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, file)
    return file
