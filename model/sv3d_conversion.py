"""Convert SV3D's published file to a pipeline folder in safetensors, tensor by tensor: `convert`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.sv3d_names import EMBEDDER, ENCODER, NETWORK, UNUSED, autoencoder_name, embedder_name, network_name
from recon.user_error import UserError

PIPELINE = "StableVideo3DDiffusionPipeline"
_MULTIPLIERS = (1, 2, 4, 4)
_HEAD, _VISION_HEAD = 64, 80
_WIDTH = 256
"""Numbers in the sinusoid of one condition."""
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
"""Of CLIP's pictures."""


def convert(file: Path, target: Path, card: str = "") -> None:
    """Write the folder `target` from `sv3d_u.safetensors` or `sv3d_p.safetensors`, weights bit by bit as published.

    Args:
        target: made anew; nothing is there unless all went well.
        card: text of the model card, which states the licence.

    Raises:
        UserError: if a tensor is missing, of another shape, or not of SV3D.
    """
    from safetensors import SafetensorError, safe_open

    growing = target.with_name(f"{target.name}.growing")
    shutil.rmtree(growing, ignore_errors=True)
    try:
        with safe_open(file, framework="pt") as source:
            shapes = {name: tuple(source.get_slice(name).get_shape()) for name in source.keys()}  # noqa: SIM118
            parts = _parts(file, shapes)
            for name, part in parts.items():
                _write(growing / name, file, part, shapes, source.get_tensor)
    except SafetensorError as error:
        raise UserError(f"{file} is no whole safetensors file: {error}; download it again") from error
    (growing / "feature_extractor").mkdir()
    side = parts["image_encoder"].network.config.image_size
    features = {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side},
                "image_mean": _MEAN, "image_std": _STD}  # fmt: skip
    (growing / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(features, indent=2))
    index = {"_class_name": PIPELINE, "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"], "feature_extractor": ["transformers", "CLIPImageProcessor"],
             "image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}  # fmt: skip
    (growing / "model_index.json").write_text(json.dumps(index, indent=2))
    if card:
        (growing / "README.md").write_text(card)
    shutil.rmtree(target, ignore_errors=True)
    growing.rename(target)


class Part:
    """One network of the folder: an empty one that knows names and shapes, and where each tensor comes from.

    Args:
        network: on the meta device.
        sources: of each of its parameters, the file's name and which third of it, if not all.
        adapt: (tensor of the file, name here) -> tensor here.
    """

    def __init__(
        self, network: Any, sources: Callable[[str], tuple[str, int | None]], adapt: Callable[[Tensor, str], Tensor]
    ) -> None:
        self.network, self.adapt = network, adapt
        self.names = {name: sources(name) for name, _ in network.named_parameters()}


def _parts(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Part]:
    """The three networks in the sizes that the file has."""
    import torch

    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    for name in (f"{NETWORK}input_blocks.0.0.weight", f"{NETWORK}label_emb.0.0.weight",
                 f"{ENCODER}encoder.conv_in.weight", f"{EMBEDDER}conv1.weight"):  # fmt: skip
        if name not in shapes:
            raise UserError(f"{file} has no {name}; it is not SV3D in the published layout")
    with torch.device("meta"):
        parts = {"unet": _network(shapes), "vae": _autoencoder(shapes), "image_encoder": _embedder(shapes)}
    known = {name for part in parts.values() for name, _ in part.names.values()}
    extra = [name for name in shapes if name not in known and (name.startswith(NETWORK) or not name.startswith(UNUSED))]
    if extra:
        raise UserError(f"{file} has {_some(extra)}, which SV3D has not; it is another model")
    return parts


def _network(shapes: Mapping[str, tuple[int, ...]]) -> Part:
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

    base = shapes[f"{NETWORK}input_blocks.0.0.weight"][0]
    kind: Any = UNetSpatioTemporalConditionModel
    widths = [base * factor for factor in _MULTIPLIERS]
    context = shapes.get(f"{NETWORK}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (0, 1024))[1]
    network = kind(
        sample_size=72, num_frames=21, block_out_channels=tuple(widths), cross_attention_dim=context,
        num_attention_heads=tuple(max(1, width // _HEAD) for width in widths), addition_time_embed_dim=_WIDTH,
        projection_class_embeddings_input_dim=shapes[f"{NETWORK}label_emb.0.0.weight"][1],
    )  # fmt: skip
    return Part(network, lambda name: (network_name(name), None), lambda tensor, _: tensor)


def _autoencoder(shapes: Mapping[str, tuple[int, ...]]) -> Part:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    base = shapes[f"{ENCODER}encoder.conv_in.weight"][0]
    levels = len(_MULTIPLIERS)
    kind: Any = AutoencoderKL
    network = kind(
        block_out_channels=tuple(base * factor for factor in _MULTIPLIERS), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        scaling_factor=0.18215, use_post_quant_conv=False, sample_size=576,
    )  # fmt: skip

    def adapt(tensor: Tensor, name: str) -> Tensor:  # attention is written as convolutions of one pixel
        return tensor[:, :, 0, 0] if ".attentions." in name and tensor.ndim == 4 else tensor

    return Part(network, lambda name: (autoencoder_name(name, levels), None), adapt)


def _embedder(shapes: Mapping[str, tuple[int, ...]]) -> Part:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, _, patch, _ = shapes[f"{EMBEDDER}conv1.weight"]
    tokens = shapes.get(f"{EMBEDDER}positional_embedding", (257, width))[0]
    blocks = f"{EMBEDDER}transformer.resblocks."
    layers = {name.removeprefix(blocks).split(".")[0] for name in shapes if name.startswith(blocks)}
    network = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width, patch_size=patch, image_size=round((tokens - 1) ** 0.5) * patch, hidden_act="gelu",
            num_hidden_layers=len(layers), num_attention_heads=max(1, width // _VISION_HEAD),
            intermediate_size=shapes.get(f"{blocks}0.mlp.c_fc.weight", (4 * width,))[0],
            projection_dim=shapes.get(f"{EMBEDDER}proj", (width, 1024))[1],
        )
    )  # fmt: skip

    def adapt(tensor: Tensor, name: str) -> Tensor:
        return tensor.T if name == "visual_projection.weight" else tensor

    return Part(network, embedder_name, adapt)


def _write(
    folder: Path, file: Path, part: Part, shapes: Mapping[str, tuple[int, ...]], get: Callable[[str], Tensor]
) -> None:
    """The part's tensors as its `from_pretrained` reads them, and its config.

    Raises:
        UserError: if one is missing or of another shape.
    """
    from safetensors.torch import save_file

    missing = [source for source, _ in part.names.values() if source not in shapes]
    if missing:
        raise UserError(f"{file} has no {_some(missing)}; it is incomplete or another model: download it again")
    expected = {name: tuple(parameter.shape) for name, parameter in part.network.named_parameters()}
    tensors = {}
    for name, (source, third) in part.names.items():
        tensor = part.adapt(get(source), name)
        tensor = tensor if third is None else tensor.chunk(3)[third]
        if tuple(tensor.shape) != expected[name]:
            raise UserError(f"{source} in {file} is {shapes[source]}, which does not give {name} of {expected[name]}; "
                            "it is another model")  # fmt: skip
        tensors[name] = tensor.contiguous()
    folder.mkdir(parents=True)
    config = part.network.config
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    named = {"_class_name": type(part.network).__name__, **config}
    kept = {key: value for key, value in named.items() if key not in ("dtype", "torch_dtype", "_name_or_path")}
    (folder / "config.json").write_text(json.dumps(kept, indent=2))
    stem = "diffusion_pytorch_model" if hasattr(part.network, "register_to_config") else "model"
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})


def _some(names: Iterable[str]) -> str:
    several = sorted(names)
    return ", ".join(several[:3]) + (f" and {len(several) - 3} more" if len(several) > 3 else "")


def main(arguments: list[str]) -> None:
    """The command: ``FILE FOLDER [CARD]``; the card, a model card by path, states the licence in every asset's row."""
    if len(arguments) not in (2, 3):
        raise SystemExit("usage: python -m model.sv3d_conversion sv3d_u.safetensors FOLDER [README.md]")
    file, target, *card = map(Path, arguments)
    try:
        convert(file, target, card[0].read_text() if card else "")
    except (UserError, OSError) as error:
        raise SystemExit(str(error)) from error
    print(f"{target}: give it as --video.model")


if __name__ == "__main__":
    main(sys.argv[1:])
