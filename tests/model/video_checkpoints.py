"""Tiny random checkpoints of Wan image-to-video and of Droplet3D, as pipeline folders."""

import json
from pathlib import Path
from typing import Any

import torch

from recon.torchvision_shim import import_torchvision

import_torchvision()  # before diffusers and transformers


def tokenizer(folder: Path) -> Any:
    """A T5 tokenizer of single letters."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((chr(97 + k), -3.0) for k in range(26))]
    made = T5TokenizerFast(vocab=pieces, extra_ids=0)
    made.save_pretrained(folder)
    return made


def text_sizes() -> dict[str, Any]:
    return {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def write_wan(folder: Path, kind: str) -> Path:
    """`kind`: "2.1" has CLIP tokens, "2.2" two networks, "5b" keeps the first latent clean."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    torch.manual_seed(len(kind))
    sizes: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 32,
                             "ffn_dim": 32, "num_layers": 2, "in_channels": 36, "out_channels": 16}  # fmt: skip
    if kind == "2.1":
        sizes |= {"image_dim": 16, "added_kv_proj_dim": 24}
    if kind == "5b":
        sizes |= {"in_channels": 16}
    clip = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                            image_size=16, patch_size=8, projection_dim=16)  # fmt: skip
    has_clip = kind == "2.1"
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer(folder / "tokenizer"), text_encoder=UMT5EncoderModel(UMT5Config(**text_sizes())).eval(),
        vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        image_encoder=CLIPVisionModel(clip).eval() if has_clip else None,
        image_processor=CLIPImageProcessor(crop_size={"height": 16, "width": 16}, size={"shortest_edge": 16})
        if has_clip else None,
        transformer=WanTransformer3DModel(**sizes).eval(),
        transformer_2=WanTransformer3DModel(**sizes).eval() if kind == "2.2" else None,
        boundary_ratio=0.9 if kind == "2.2" else None, expand_timesteps=kind == "5b",
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def write_droplet3d(folder: Path) -> Path:
    """A folder with the class names that the released one has."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel, DDIMScheduler
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(9)
    tokenizer(folder / "tokenizer")
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=9, out_channels=4, time_embed_dim=8,
        text_embed_dim=16, num_layers=2, sample_width=90, sample_height=60, sample_frames=49, patch_size=2,
        max_text_seq_length=450, use_rotary_positional_embeddings=True,
    )  # fmt: skip
    network.save_pretrained(folder / "transformer")
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4, scaling_factor=0.7,
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    T5EncoderModel(T5Config(**text_sizes())).save_pretrained(folder / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = {"_class_name": "Droplet3D_Pipeline_Inpaint",
             "transformer": ["transformer", "Droplet3DTransformer3DModel"],
             "vae": ["vae", "AutoencoderKLDroplet3D"], "tokenizer": ["transformers", "T5Tokenizer"],
             "text_encoder": ["transformers", "T5EncoderModel"], "scheduler": ["diffusers", "DDIMScheduler"],
             }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    config = json.loads((folder / "transformer" / "config.json").read_text())
    released = config | {"_class_name": "Droplet3DTransformer3DModel", "add_noise_in_inpaint_model": True}
    (folder / "transformer" / "config.json").write_text(json.dumps(released))
    return folder
