"""Build and run the generators at their published sizes on the `meta` device, without weights: `FullSize`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.config import VideoConfig
from model.latent_video import LatentVideoModel
from model.parts import Parts
from model.video_models import FAMILIES
from model.views import latent_views, uniform_views
from recon.torchvision_shim import import_torchvision

import_torchvision()
META = torch.device("meta")
_CLIP = {"crop_size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_SPATIAL = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
_WAN: dict[str, Any] = {"num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16,
                        "ffn_dim": 13824, "num_layers": 40}  # fmt: skip


@dataclass(kw_only=True)
class FullSize:
    """A generator at its published size."""

    name: str
    size: int
    """Side of the frames in pixels."""
    parts: Callable[[], dict[str, nn.Module]]
    """Its networks, called where tensors are made on the meta device."""
    step: Callable[[Any], Tensor]
    """One step of the sampler for one sample, guidance included: [1,T,C,h,w], or for SDXL [2,C,h,w]."""
    parameters: float
    """Of the denoising network, in units of 1e9, as published."""
    family: str = ""
    frames: int = 0
    files: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, dtype: torch.dtype = torch.float16, device: torch.device = META, sampled_only: bool = False) -> Any:
        """The adapter with random weights, which on the meta device are none; for SDXL the UNet.

        Args:
            sampled_only: without the networks that a step of the sampler does not call: text encoders, and Wan 2.2's
                second one.
        """
        with device, _default_dtype(dtype):
            networks = {name: part.to(dtype).requires_grad_(False).eval() for name, part in self.parts().items()}
        if sampled_only:
            networks = {name: part for name, part in networks.items() if name not in ("text_encoder", "transformer_2")}
        if not self.family:
            return networks["unet"]
        family = FAMILIES[self.family]
        module, name = family.adapter.split(":")
        adapter: type[LatentVideoModel] = getattr(__import__(module, fromlist=[name]), name)
        for part in adapter.float32:
            networks[part].float()
        make = latent_views if self.family in ("wan", "droplet3d") else uniform_views
        views = make(self.frames, size=self.size, elevation=0.2 if self.name == "SV3D_p" else None)
        sampled = [part for part in networks if part.startswith(adapter.network_name)]
        config = VideoConfig(model=self.name, **self.settings)
        return adapter(Parts(networks, sampled, device, dtype), self.files, config, family, views, "", "")


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Networks are made in `dtype`: the largest would not fit a card in float32 first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _image(model: Any, size: int) -> Tensor:
    return torch.zeros(1, 3, size, size, device=model.device)


def _sdxl() -> dict[str, nn.Module]:
    from diffusers import UNet2DConditionModel

    made: Any = UNet2DConditionModel
    return {"unet": made(
        sample_size=128, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        attention_head_dim=(5, 10, 20),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=2048,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )}  # fmt: skip


def _sdxl_step(unet: Any) -> Tensor:
    half = {"device": unet.device, "dtype": torch.float16}
    more = {"text_embeds": torch.zeros(2, 1280, **half), "time_ids": torch.zeros(2, 6, **half)}  # type: ignore[arg-type]
    latents = torch.zeros(2, 4, 128, 128, **half)  # type: ignore[arg-type]
    text = torch.zeros(2, 77, 2048, **half)  # type: ignore[arg-type]
    return unet(latents, torch.zeros((), device=unet.device), text, added_cond_kwargs=more, return_dict=False)[0]


def _image_vae(**more: Any) -> nn.Module:
    from diffusers import AutoencoderKL

    made: Any = AutoencoderKL
    return made(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                down_block_types=_SPATIAL[0], up_block_types=_SPATIAL[1], scaling_factor=0.18215, **more)  # fmt: skip


def _clip(width: int = 1280, layers: int = 32, projected: bool = True) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                              num_attention_heads=16, patch_size=14, image_size=224, projection_dim=1024)  # fmt: skip
    return (CLIPVisionModelWithProjection if projected else CLIPVisionModel)(config)


def _i2vgen() -> dict[str, nn.Module]:
    from diffusers import I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    return {"unet": I2VGenXLUNet(sample_size=32, cross_attention_dim=1024), "vae": _image_vae(),
            "text_encoder": CLIPTextModel(text), "image_encoder": _clip()}  # fmt: skip


def _i2vgen_step(model: Any) -> Tensor:
    image, latents = model._image(_image(model, 512)), model._image_latents(_image(model, 512))
    text = torch.zeros(2, 77, 1024, device=model.device)
    predict = model.denoiser(text, image.expand(2, -1, -1), latents.expand(2, -1, -1, -1, -1))
    shape = model.latent_shape(512)
    return predict(torch.zeros(2, *shape, device=model.device), torch.zeros((), device=model.device))[:1]


def _svd(vectors: int, frames: int, vae: Callable[[], nn.Module]) -> Callable[[], dict[str, nn.Module]]:
    def parts() -> dict[str, nn.Module]:
        from diffusers import UNetSpatioTemporalConditionModel

        unet = UNetSpatioTemporalConditionModel(
            num_frames=frames, projection_class_embeddings_input_dim=vectors, num_attention_heads=(5, 10, 20, 20)
        )
        return {"unet": unet, "vae": vae(), "image_encoder": _clip()}

    return parts


def _temporal_vae() -> nn.Module:
    from diffusers import AutoencoderKLTemporalDecoder

    made: Any = AutoencoderKLTemporalDecoder
    return made(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                down_block_types=_SPATIAL[0])  # fmt: skip


def _conditioned_step(model: Any) -> Tensor:
    size = model.views.size
    predict = model.condition(_image(model, size), [""], [0]).predict
    return predict(torch.zeros(1, *model.latent_shape(size), device=model.device), torch.zeros((), device=model.device))


def _umt5() -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24,
                                       num_heads=64, feed_forward_proj="gated-gelu"))  # fmt: skip


def _wan(kind: str) -> Callable[[], dict[str, nn.Module]]:
    def parts() -> dict[str, nn.Module]:
        from diffusers import AutoencoderKLWan, WanTransformer3DModel

        network: Any = WanTransformer3DModel
        sizes = _WAN | ({"image_dim": 1280, "added_kv_proj_dim": 5120} if kind == "2.1" else {})
        vae: dict[str, Any] = {}
        if kind == "5b":
            sizes |= {"num_attention_heads": 24, "in_channels": 48, "out_channels": 48, "ffn_dim": 14336,
                      "num_layers": 30}  # fmt: skip
            vae = {"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "patch_size": 2,
                   "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16,
                   "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}  # fmt: skip
        made: dict[str, nn.Module] = {"transformer": network(**sizes), "vae": AutoencoderKLWan(**vae)}
        made["text_encoder"] = _umt5()
        if kind == "2.1":
            made["image_encoder"] = _clip(projected=False)
        return made | ({"transformer_2": network(**sizes)} if kind == "2.2" else {})

    return parts


def _wan_step(model: Any) -> Tensor:
    text = torch.zeros(1, 512, 4096, device=model.device, dtype=model.dtype)
    image, expands = _image(model, model.views.size), model.files["index"].get("expand_timesteps")
    tokens = model._image_tokens(image) if "image_encoder" in model.parts.networks else None
    given = model._first_latents(image) if expands else model._masked_latents(image)
    predict = (model._denoiser_of_first if expands else model._denoiser_beside)(text, tokens, given)
    with mock.patch.object(type(model), "_network_at", return_value="transformer"):  # meta timesteps have no value
        shape = model.latent_shape(model.views.size)
        return predict(torch.zeros(1, *shape, device=model.device), torch.zeros((), device=model.device))


def _droplet3d() -> dict[str, nn.Module]:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    made: Any = AutoencoderKLCogVideoX
    text = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                    feed_forward_proj="gated-gelu")  # fmt: skip
    return {
        "transformer": CogVideoXTransformer3DModel(num_attention_heads=48, num_layers=42, in_channels=33,
                                                   use_rotary_positional_embeddings=True),
        "vae": made(block_out_channels=(128, 256, 256, 512), latent_channels=16, layers_per_block=3,
                    down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
                    scaling_factor=0.7),
        "text_encoder": T5EncoderModel(text),
    }  # fmt: skip


def _droplet3d_step(model: Any) -> Tensor:
    text = torch.zeros(1, 450, 4096, device=model.device, dtype=model.dtype)
    predict = model._denoiser(text, model.condition_planes(_image(model, 512)))
    return predict(torch.zeros(1, *model.latent_shape(512), device=model.device), torch.zeros((), device=model.device))


_SINGLE_VAE: Callable[[], nn.Module] = lambda: _image_vae(use_post_quant_conv=False)  # noqa: E731
FULL_SIZES = (
    FullSize(name="SDXL", size=1024, parts=_sdxl, step=_sdxl_step, parameters=2.567),
    FullSize(name="I2VGen-XL", size=512, parts=_i2vgen, step=_i2vgen_step, parameters=1.420, family="i2vgen-xl",
             frames=16, files={"feature_extractor": _CLIP}),
    FullSize(name="Stable Video Diffusion", size=512, parts=_svd(768, 14, _temporal_vae), step=_conditioned_step,
             parameters=1.525, family="svd", frames=16, files={"feature_extractor": _CLIP}),
    FullSize(name="SV3D_u", size=576, parts=_svd(256, 21, _SINGLE_VAE), step=_conditioned_step, parameters=1.524,
             family="sv3d", frames=21, files={"feature_extractor": _CLIP}),
    FullSize(name="SV3D_p", size=576, parts=_svd(1280, 21, _SINGLE_VAE), step=_conditioned_step, parameters=1.525,
             family="sv3d", frames=21, files={"feature_extractor": _CLIP}),
    FullSize(name="Wan 2.1 I2V 14B", size=512, parts=_wan("2.1"), step=_wan_step, parameters=16.4, family="wan",
             frames=81, files={"index": {}, "scheduler": {}, "image_processor": _CLIP}),
    FullSize(name="Wan 2.2 I2V A14B", size=512, parts=_wan("2.2"), step=_wan_step, parameters=14.3, family="wan",
             frames=81, files={"index": {"boundary_ratio": 0.9}, "scheduler": {}}),
    FullSize(name="Wan 2.2 TI2V 5B", size=512, parts=_wan("5b"), step=_wan_step, parameters=5.0, family="wan",
             frames=121, files={"index": {"expand_timesteps": True}, "scheduler": {}}),
    FullSize(name="Droplet3D 5B", size=512, parts=_droplet3d, step=_droplet3d_step, parameters=5.57,
             family="droplet3d", frames=85),
)  # fmt: skip


def _tiny_svd() -> dict[str, nn.Module]:
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    made: Any = AutoencoderKLTemporalDecoder
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, num_frames=4, cross_attention_dim=16, num_attention_heads=2,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        projection_class_embeddings_input_dim=24, addition_time_embed_dim=8,
    )  # fmt: skip
    vae = made(down_block_types=_SPATIAL[0][:2], block_out_channels=(32, 32), latent_channels=4)
    clip = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                            projection_dim=16, image_size=224, patch_size=56)  # fmt: skip
    return {"unet": unet, "vae": vae, "image_encoder": CLIPVisionModelWithProjection(clip)}


TINY = FullSize(name="tiny Stable Video Diffusion", size=16, parts=_tiny_svd, step=_conditioned_step, parameters=0.0,
                family="svd", frames=4, files={"feature_extractor": _CLIP})  # fmt: skip
"""For machines without a GPU: the same code in seconds."""


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made while it lasts held at once.

    Args:
        networks: whose weights were there before.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.now = self.peak = 0
        kept = [tensor for part in networks for tensor in (*part.parameters(), *part.buffers())]
        self._seen = {tensor.untyped_storage()._cdata for tensor in kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the storages that it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


@contextmanager
def attention_without_scores() -> Iterator[None]:
    """Attention as GPUs have it, which never holds the scores of all pairs; on the meta device it would.

    The stand-in has its shapes, and gradients reach all three.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return query @ (key.transpose(-2, -1) @ value)

    with mock.patch.object(nn.functional, "scaled_dot_product_attention", attend):
        yield
