"""Settings that take their networks from a folder of pulled ones."""

from factory.config.settings import FactoryConfig, ViewsConfig, fingerprint, preset
from factory.weights.catalogue import CATALOGUE
from factory.weights.folder import assigned, resolved
from model.config import VideoConfig
from recon.config import FitConfig
from recon.loss_weights import LossConfig


def test_a_preset_takes_its_networks_from_the_folder_and_its_outcomes_stay_the_same() -> None:
    config = preset("paper")
    before = fingerprint(config)
    config.weights = "s3://bucket/weights/"
    there = resolved(config)
    assert there.image.model == "s3://bucket/weights/sdxl"
    assert there.views.masks == "s3://bucket/weights/isnet/isnet-general-use.onnx"
    assert set(assigned(config).values()) <= CATALOGUE.keys()
    assert fingerprint(config) == before
    config.weights = None
    assert resolved(config) == config


def test_every_kind_of_network_is_found_by_what_settings_call_it() -> None:
    config = FactoryConfig(
        video=VideoConfig(model="sv3d-p", lora="Remade-AI/Rotate:rotate_20_epochs.safetensors"),
        views=ViewsConfig(masks="u2netp", estimator="elevation-dino"),
        fit=FitConfig(loss=LossConfig(perceptual="vgg")), weights="w",
    )  # fmt: skip
    config.clip.model = "ViT-L-14-quickgelu"
    there = resolved(config)
    assert (there.video.model, there.video.lora) == ("w/sv3d-p", "w/wan2.1-rotate/rotate_20_epochs.safetensors")
    assert (there.views.masks, there.views.estimator) == ("u2netp", "w/elevation-dino")
    assert there.fit.loss.perceptual_weights == "w/lpips"
    assert there.clip.model == "w/ViT-L-14-quickgelu-openai"
    assert there.image == config.image  # embedded
    config.fit.loss.perceptual_weights = "mine.safetensors"
    config.clip.pretrained = "laion2b"
    assert resolved(config).fit.loss.perceptual_weights == "mine.safetensors"
    assert resolved(config).clip == config.clip
