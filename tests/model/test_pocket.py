"""The pocket models' parts: geometry of the turntable layers, frozen spatial layers, colours, training."""

import math

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.pocket.autoencoder import PocketAutoencoder, fit_encoder, to_frames, to_premultiplied
from model.pocket.data import COLORS, TurntableSet, color_name, draw, hue_rotation, recolored_caption, rotate_hue
from model.pocket.losses import video_loss
from model.pocket.temporal import TurntableVolume
from model.pocket.text import PocketTextEncoder, train_tokenizer
from model.pocket.unet import PocketUNet, Views
from model.temporal import freeze_spatial
from model.training import learning_rate, train
from recon.cameras import intrinsics, look_at_origin

SIZE = 32


def disc(color, radius=0.5, centre=(0.0, 0.0)) -> torch.Tensor:
    """A coloured disc uint8 [S,S,4] over white."""
    axis = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    alpha = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2).float()[..., None]
    rgb = torch.tensor(color).float() * alpha + 255 * (1 - alpha)
    return torch.cat([rgb, 255 * alpha], -1).to(torch.uint8)


def turntables(count: int = 3) -> TurntableSet:
    """Discs that circle sideways as a ball beside the axis would."""
    palette = [(200, 40, 40), (40, 60, 200), (40, 180, 60)]
    frames = torch.stack([
        torch.stack([disc(palette[i % 3], 0.3, (0.5 * math.sin(2 * math.pi * k / 16), 0.1)) for k in range(16)])[None]
        for i in range(count)
    ])  # fmt: skip
    captions = ["a red ball", "a ball", "a green ball"][:count]
    return TurntableSet(
        frames=frames, elevations=torch.full((count, 1), 0.3), captions=captions, asset_ids=list("abc"[:count])
    )


def small_unet(temporal: bool = True) -> PocketUNet:
    torch.manual_seed(0)
    return PocketUNet(latent_channels=8, latent_size=2, widths=(32, 64), text_dim=192, temporal=temporal)


def small_text() -> PocketTextEncoder:
    torch.manual_seed(0)
    return PocketTextEncoder(train_tokenizer(["a red ball", "a green ball"], 300), num_layers=1).requires_grad_(False)


def small_autoencoder() -> PocketAutoencoder:
    torch.manual_seed(0)
    model = PocketAutoencoder(latent_channels=8, widths=(16, 16, 8))
    fit_encoder(model, to_premultiplied(turntables().frames.flatten(0, 2)))
    return model.requires_grad_(False)


def test_premultiplied_frames_survive_the_round_trip():
    frames = torch.stack([disc((200, 30, 90)), disc((0, 0, 0)), disc((255, 255, 255))])
    assert torch.equal(to_frames(to_premultiplied(frames)), frames)


def test_closed_form_encoder_is_the_principal_subspace():
    images = to_premultiplied(turntables().frames.flatten(0, 2))
    model = PocketAutoencoder(latent_channels=8, widths=(16, 16, 8))
    fit_encoder(model, images, whitening=1.0)
    latents = model.encode(images).detach().transpose(0, 1).flatten(1)
    assert latents.mean(1).abs().max() < 1e-3
    assert torch.allclose(torch.cov(latents, correction=0), torch.eye(8), atol=2e-3)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        small_autoencoder().encode(torch.zeros(1, 4, 40, 32))


def test_volume_sees_a_point_where_the_camera_does():
    """A feature at one cell of the volume must be read back at the pixel that the camera projects it to."""
    torch.manual_seed(0)
    layer = TurntableVolume(16, grid=8, width=48)
    cell = (6, 4, 5)
    volume = torch.zeros(1, 48, 8, 8, 8)
    volume[0, 0][cell] = 1.0
    azimuth, elevation = torch.tensor([[0.0, 0.7, 2.0, 4.0]]), torch.tensor([0.4])
    viewmats = look_at_origin(azimuth[0], elevation.expand(4), 3.0115)
    layer.read = torch.nn.Identity()
    image = layer._read(volume, viewmats, 4, (16, 16))
    heat = image.detach().reshape(4, 48, 8, 16, 16)[:, 0].sum(1)
    point = torch.tensor([(index + 0.5) / 4 - 1 for index in cell])
    local = viewmats[:, :3, :3] @ point + viewmats[:, :3, 3]
    pixel = (intrinsics(16, 40.0) @ (local / local[:, 2:]).T).T[:, :2]
    rows, columns = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    centre = torch.stack([(heat * columns).sum((1, 2)), (heat * rows).sum((1, 2))], -1) / heat.sum((1, 2))[:, None]
    assert (centre - pixel).abs().max() < 0.6


def test_a_video_turns_with_its_cameras():
    """Rolling azimuths and frames together must roll the prediction: the layers know cameras, not frame numbers."""
    layer = TurntableVolume(16, grid=4, width=8).eval()
    features = torch.randn(4, 16, 4, 4)
    azimuth = torch.arange(4)[None] * math.pi / 2
    out = layer(features, Views(azimuth, torch.tensor([0.2])))
    rolled = layer(features.roll(1, 0), Views(azimuth.roll(1, 1), torch.tensor([0.2])))
    assert torch.allclose(out.roll(1, 0), rolled, atol=1e-5)


def test_image_model_is_the_video_model_without_temporal_layers():
    image, video = small_unet(temporal=False), small_unet()
    spatial = {name for name, _ in video.named_parameters() if "temporal" not in name}
    assert spatial == {name for name, _ in image.named_parameters()}


def test_fine_tuning_leaves_spatial_parameters_bit_identical(tmp_path):
    unet = small_unet()
    freeze_spatial(unet, "pocket")
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    loss = video_loss(unet, small_text(), small_autoencoder(), turntables(), batch_size=2)
    train(unet, loss, TrainConfig(num_steps=3, save_every=10, log_every=10), tmp_path)
    changed = {name for name, value in unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("temporal" in name for name in changed)


def test_frame_zero_of_the_input_is_the_image():
    unet = small_unet()
    image = torch.randn(1, 8, 2, 2)
    noisy = torch.randn(1, 16, 8, 2, 2)
    x = unet._input(noisy, image).unflatten(0, (1, 16))
    assert torch.equal(x[:, 0, :8], image)
    assert torch.equal(x[:, 1:, :8], noisy[:, 1:])
    assert x[0, :, 16].flatten(1).mean(1).tolist() == [1.0, *[0.0] * 15]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((220, 30, 30), "red"), ((40, 90, 220), "blue"), ((50, 170, 60), "green"), ((230, 200, 40), "yellow"),
     ((120, 80, 50), "brown"), ((20, 20, 20), "black"), ((230, 230, 230), "white"), ((120, 122, 125), "grey")],
)  # fmt: skip
def test_color_names(rgb, name):
    assert color_name(to_premultiplied(disc(rgb))) == name


def test_hue_rotation_keeps_grey_and_coverage_and_turns_red_to_green():
    assert torch.allclose(hue_rotation(1.3) @ torch.ones(3), torch.ones(3), atol=1e-6)
    red = to_premultiplied(torch.stack([disc((200, 20, 20))]))
    turned = rotate_hue(red, 2 * math.pi / 3)
    assert torch.equal(turned[:, 3], red[:, 3])
    assert color_name(turned[0]) == "green"


def test_captions_follow_the_colour():
    assert recolored_caption("a brown wooden chair", "blue") == "a blue wooden chair"
    assert recolored_caption("a chair", "orange") == "an orange chair"
    assert recolored_caption("a red house", None) == "a house"
    assert recolored_caption("containers", "red") == "red containers"


def test_augmented_captions_name_what_is_seen():
    sets = turntables()
    named = [draw(sets, i % 3, torch.Generator().manual_seed(i)) for i in range(60)]
    colored = [s for s in named if any(color in s.caption.split() for color in COLORS)]
    assert len(colored) > 20
    right = [color_name(s.video[0]) in s.caption.split() for s in colored]
    assert np.mean(right) > 0.9


def test_mirrored_turntables_turn_the_same_way():
    """Frame 4 of a mirrored turntable must be the mirror image of frame 12, not of frame 4."""
    sets = turntables(1)
    for seed in range(40):
        sample = draw(sets, 0, torch.Generator().manual_seed(seed), roll_share=1e-9)
        alpha = sample.video[4, 3] > 0
        columns = alpha.any(0).nonzero().flatten().float().mean() / SIZE
        assert columns > 0.6


def test_training_resumes_exactly(tmp_path):
    def run(folder, *stops):
        for stop in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 1)

            def loss_fn(step, generator, model=model):
                x = torch.randn(8, 4, generator=generator)
                return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}

            config = TrainConfig(num_steps=20, save_every=5, log_every=5, warmup_steps=2)
            config.num_steps = 20
            if stop < 20:
                original, config.save_every = config.num_steps, stop
                with pytest.raises(KeyboardInterrupt):
                    train(model, loss_fn, config, folder, on_save=_interrupt)
                assert original == 20
            else:
                train(model, loss_fn, config, folder)
        return model.weight.detach()

    assert torch.equal(run(tmp_path / "whole", 20), run(tmp_path / "cut", 10, 20))


def _interrupt(step: int) -> None:
    raise KeyboardInterrupt


def test_learning_rate_warms_up_and_ends_at_zero():
    config = TrainConfig(num_steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(30, config) == 1.0
    assert learning_rate(75, config) == pytest.approx(0.5)
    assert learning_rate(100, config) == 0.0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="step 0"):
        train(model, lambda step, generator: (model.weight.sum() * math.nan, {}), TrainConfig(num_steps=2), tmp_path)
