"""Map names of SV3D's tensors from diffusers and transformers to the published file: `network_name`.

The published file has the layout of sgm: `model.diffusion_model` is the network, `conditioner.embedders.1.encoder` the
autoencoder of the picture, `first_stage_model` the decoder, `conditioner.embedders.0.open_clip` the image embedder.
"""

from __future__ import annotations

import re

NETWORK, ENCODER, DECODER = "model.diffusion_model.", "conditioner.embedders.1.encoder.", "first_stage_model."
EMBEDDER = "conditioner.embedders.0.open_clip.model.visual."
UNUSED = ("conditioner.", "first_stage_model.", "denoiser.", "model_ema.")
"""What else the file may hold, as the text tower of the image embedder."""

_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {
    "temporal_transformer_blocks": "time_stack",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
_AUTOENCODER = {
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}
_VISION = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
    "visual_projection.weight": "proj",
    "vision_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def network_name(name: str) -> str:
    """The file's name of a parameter of `UNetSpatioTemporalConditionModel`.

    Raises:
        ValueError: if the network has no such parameter.
    """
    for ours, theirs in _OUTSIDE.items():
        if name.startswith(f"{ours}."):
            return NETWORK + theirs + name.removeprefix(ours)
    match = re.fullmatch(r"(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.(\w+?)s?\.(\d+)\.(.+)", name)
    if match is None:
        raise ValueError(f"{name} is no parameter of SV3D's network")
    side, block, kind, layer, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if kind == "downsampler":
        rest = f"op{rest.removeprefix('conv')}"
    inner = {"resnet": _residual, "attention": _attention}.get(kind, str)(rest)
    return f"{NETWORK}{_place(side, block, kind, layer)}.{inner}"


def _place(side: str, block: int, kind: str, layer: int) -> str:
    """Where a residual block, an attention block, a down- or an upsampler lies; three places a resolution."""
    if side == "mid_block":
        return f"middle_block.{1 if kind == 'attention' else 2 * layer}"
    if kind == "downsampler":
        return f"input_blocks.{3 * block + 3}.0"
    if kind == "upsampler":
        return f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}"
    number = 3 * block + layer + (side == "down_blocks")
    return f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{int(kind == 'attention')}"


def _residual(rest: str) -> str:
    if rest == "time_mixer.mix_factor":
        return rest
    part, layer, last = rest.split(".", 2)
    return ("time_stack." if part == "temporal_res_block" else "") + f"{_RESIDUAL[layer]}.{last}"


def _attention(rest: str) -> str:
    for ours, theirs in _ATTENTION.items():
        if rest.startswith(f"{ours}."):
            return theirs + rest.removeprefix(ours)
    return rest


def autoencoder_name(name: str, levels: int) -> str:
    """The file's name of a parameter of `AutoencoderKL` with `levels` resolutions."""
    theirs = name
    for ours, replacement in _AUTOENCODER.items():
        theirs = re.sub(rf"(?<![\w]){re.escape(ours)}(?=\.)", replacement, theirs)
    theirs = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", theirs)
    theirs = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", theirs)
    theirs = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", theirs)
    theirs = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", theirs)
    return (DECODER if theirs.startswith("decoder.") else ENCODER) + theirs


def embedder_name(name: str) -> tuple[str, int | None]:
    """The file's name of a parameter of `CLIPVisionModelWithProjection`, and which third of it where it is shared."""
    if match := re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
        layer = match[1].replace("vision_model.encoder.layers", "transformer.resblocks")
        return f"{EMBEDDER}{layer}.attn.in_proj_{match[3]}", "qkv".index(match[2])
    for ours, theirs in _VISION.items():
        name = name.replace(ours, theirs)
    return EMBEDDER + name, None
