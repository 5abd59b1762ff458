"""The pocket models' parts: geometry of the turntable layers, frozen spatial layers, colours, training."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from factory.storage.local import LocalStore
from model.checkpoints import Checkpoints
from model.config import Drawing, Share, TrainConfig
from model.parallel import World
from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.data import (
    COLORS,
    Batch,
    Turntable,
    color_name,
    draw,
    hue_rotation,
    recolored_caption,
    rotate_hue,
    stack,
)
from model.pocket.losses import VideoLoss
from model.pocket.pixels import to_frames, to_premultiplied
from model.pocket.temporal import TurntableVolume
from model.pocket.text import PocketTextEncoder, train_tokenizer
from model.pocket.unet import Layer, PocketUNet, Views
from model.temporal import freeze_spatial
from model.training import NotFinite, Recipe, Training, learning_rate, train
from recon.cameras import intrinsics, look_at_origin

SIZE = 32


def disc(color, radius=0.5, centre=(0.0, 0.0)) -> torch.Tensor:
    """A coloured disc uint8 [S,S,4] over white."""
    axis = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    alpha = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2).float()[..., None]
    rgb = torch.tensor(color).float() * alpha + 255 * (1 - alpha)
    return torch.cat([rgb, 255 * alpha], -1).to(torch.uint8)


def turntable(index: int = 0) -> Turntable:
    """A disc that circles sideways as a ball beside the axis would."""
    color = [(200, 40, 40), (40, 60, 200), (40, 180, 60)][index % 3]
    frames = [disc(color, 0.3, (0.5 * math.sin(2 * math.pi * k / 16), 0.1)).numpy() for k in range(16)]
    return Turntable(
        frame=frames.__getitem__, count=16, caption=["a red ball", "a ball", "a green ball"][index % 3], elevation=0.3
    )


def discs() -> torch.Tensor:
    """Every view of three turntables, float [48,4,S,S]."""
    return to_premultiplied(torch.from_numpy(np.stack([turntable(i).frame(k) for i in range(3) for k in range(16)])))


def stream(drawing: Drawing) -> Iterator[Batch]:
    """Endless batches."""
    for step in itertools.count():
        generators = [torch.Generator().manual_seed(1000 * step + i) for i in range(drawing.batch)]
        yield stack([draw(turntable(i), drawing, g) for i, g in enumerate(generators)])


def small_unet(temporal: bool = True) -> PocketUNet:
    torch.manual_seed(0)
    return PocketUNet(latent_channels=8, latent_size=2, widths=(32, 64), text_dim=192, temporal=temporal)


def small_text() -> PocketTextEncoder:
    torch.manual_seed(0)
    return PocketTextEncoder(train_tokenizer(["a red ball", "a green ball"], 300), num_layers=1).requires_grad_(False)


def small_autoencoder() -> PocketAutoencoder:
    torch.manual_seed(0)
    return PocketAutoencoder(latent_channels=8, widths=(16, 16, 8)).requires_grad_(False)


def test_premultiplied_frames_survive_the_round_trip():
    frames = torch.stack([disc((200, 30, 90)), disc((0, 0, 0)), disc((255, 255, 255))])
    assert torch.equal(to_frames(to_premultiplied(frames)), frames)


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


def temporal_training(**config) -> Training:
    unet, settings = small_unet(), TrainConfig(log_every=10, precision="float32", **config)
    freeze_spatial(unet, "pocket")
    loss = VideoLoss(unet, small_text(), small_autoencoder(), settings)
    recipe = Recipe(loss=loss, save=lambda folder: None, blocks=[m for m in unet.modules() if isinstance(m, Layer)])
    return Training(recipe, settings, Share.of(settings, 2, 1))


def test_fine_tuning_leaves_spatial_parameters_bit_identical():
    training = temporal_training(num_steps=3)
    unet = training.loss.unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    train(training, stream(Drawing(batch=2)), lambda row: None, lambda: None)
    changed = {name for name, value in unet.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("temporal" in name for name in changed)


def test_micro_batches_and_recomputation_give_the_same_gradients():
    """A step of four turntables, at once and in two halves whose activations are computed again."""
    gradients = []
    for config in ({}, {"micro_batch": 2, "recompute": True}):
        training = temporal_training(num_steps=9, total_batch=4, **config)
        training.share = Share.of(training.config, 2, 1)
        training.loss.forward = lambda batch, generator, t=training: (video_error(t.loss.unet, batch), {})
        batch = next(stream(Drawing(batch=4)))
        parts = [batch] if not config else [part(batch, slice(0, 2)), part(batch, slice(2, 4))]
        training.optimizer.step = lambda: None
        training.advance(iter(parts))
        gradients.append({n: p.grad.clone() for n, p in training.parameters.items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def part(batch: Batch, rows: slice) -> Batch:
    return Batch(
        frames=batch.frames[rows], captions=batch.captions[rows], azimuths=batch.azimuths[rows],
        elevations=batch.elevations[rows],
    )  # fmt: skip


def video_error(unet: PocketUNet, batch: Batch) -> torch.Tensor:
    """The squared output of the network on inputs without noise."""
    latents = batch.videos().mean((3, 4))[..., None, None].expand(-1, -1, -1, 2, 2).repeat(1, 1, 2, 1, 1)
    text = torch.zeros(len(batch), 4, 192)
    out = unet(
        latents, torch.full((len(batch),), 500), text, text[:, 0], batch.azimuths, batch.elevations, latents[:, 0]
    )
    return out.square().mean()


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
    named = [draw(turntable(i), Drawing(batch=1), torch.Generator().manual_seed(i)) for i in range(60)]
    colored = [s for s in named if any(color in s.captions[0].split() for color in COLORS)]
    assert len(colored) > 20
    right = [color_name(s.videos()[0, 0]) in s.captions[0].split() for s in colored]
    assert np.mean(right) > 0.9


def test_mirrored_turntables_turn_the_same_way():
    """Frame 4 of a mirrored turntable must be the mirror image of frame 12, not of frame 4."""
    for seed in range(40):
        sample = draw(turntable(), Drawing(batch=1), torch.Generator().manual_seed(seed))
        alpha = sample.frames[0, 4, ..., 3] > 0
        columns = alpha.any(0).nonzero().flatten().float().mean() / SIZE
        assert columns > 0.6


@dataclass
class Numbers:
    """A batch that is nothing but numbers."""

    x: torch.Tensor

    def to(self, device: torch.device) -> "Numbers":
        return self


class Regression(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 1))

    def forward(self, batch: Numbers, generator: torch.Generator):
        x = batch.x + 0.1 * torch.randn(batch.x.shape, generator=generator)
        return (self.line(x) - batch.x.sum(1, keepdim=True)).square().mean(), {}


def regression(**config) -> Training:
    settings = TrainConfig(num_steps=20, warmup_steps=2, **config)
    return Training(Recipe(loss=Regression(), save=lambda folder: None), settings, Share.of(settings, 8, 1))


def numbers(start: int) -> Iterator[Numbers]:
    for step in itertools.count(start):
        yield Numbers(torch.randn(8, 4, generator=torch.Generator().manual_seed(step)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_resumes_exactly(tmp_path, optimizer):
    """Weights, average, optimiser and the layers' own randomness: cut after 7 steps and gone on with, bit for bit."""
    whole, rows = regression(optimizer=optimizer), []
    train(whole, numbers(0), rows.append, lambda: None)
    checkpoints = Checkpoints(LocalStore(str(tmp_path)))
    cut = regression(save_every=7, optimizer=optimizer)

    def stop() -> None:
        checkpoints.save(cut.step, cut.state(), None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, numbers(0), lambda row: None, stop)
    found, _ = checkpoints.latest()
    assert found is not None
    resumed, later = regression(optimizer=optimizer), []
    resumed.load(found.state, found.step)
    train(resumed, numbers(7), later.append, lambda: None)
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[7:]]
    for part in ("weights", "average", "optimizer"):
        assert all(torch.equal(v, resumed.state()[part][n]) for n, v in whole.state()[part].items())
    assert not torch.equal(whole.average["line.0.weight"], whole.parameters["line.0.weight"])


def test_half_precision_goes_on_with_its_scale_and_begins_one_where_there_is_none():
    for before in ("float16", "float32"):
        first, again = regression(precision=before), regression(precision="float16")
        train(first, numbers(0), lambda row: None, lambda: None)
        again.load(first.state(), first.step)
        assert again.scaler.get_scale() == (first.scaler.get_scale() if before == "float16" else 2.0**16)
        assert np.isfinite(again.advance(numbers(20))["loss"])


def test_only_the_first_worker_keeps_a_copy_of_the_state():
    other = regression()
    other.world = World(rank=1)
    assert other.state() == {"weights": {}, "average": {}, "optimizer": {}}


@pytest.mark.parametrize(("last", "best"), [((0.9, "a"), 1), ((0.5, "b"), 3), ((None, None), 3), ((math.nan, "a"), 1)])
def test_losses_on_other_turntables_do_not_compare(tmp_path, last, best):
    checkpoints = Checkpoints(LocalStore(str(tmp_path)), keep_last=9)
    for step, (loss, judged_on) in enumerate([(0.1, "a"), (0.2, "a"), last], 1):
        checkpoints.save(step, {}, loss, judged_on)
    assert checkpoints.best() == best


def test_a_checkpoint_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"another model's: only one of the two has line\.0\.bias"):
        regression().load({"weights": {}, "average": {}, "optimizer": {}}, 1)


def test_validation_measures_the_average_and_leaves_the_weights_alone():
    training = regression(ema_decay=0.0)
    train(training, numbers(0), lambda row: None, lambda: None)
    training.average = {name: torch.zeros_like(value) for name, value in training.average.items()}
    before = {name: value.clone() for name, value in training.loss.state_dict().items()}
    batches = [next(numbers(100)), next(numbers(101))]
    truth = np.mean([float(batch.x.sum(1).square().mean()) for batch in batches])
    assert training.validate([*enumerate(batches)])["loss"] == pytest.approx(truth, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in training.loss.state_dict().items())


class Named(Regression):
    """Names its loss by the sign of the batch's first number."""

    def forward(self, batch: Numbers, generator: torch.Generator):
        loss, _ = super().forward(batch, generator)
        return loss, {"all": float(batch.x[0, 0]), "up" if batch.x[0, 0] > 0 else "down": float(batch.x[0, 0])}


class BesideAnother(World):
    """One of two workers, of which the other always has the same two rows."""

    calls: ClassVar[list[Any]] = []

    def gather(self, value: Any) -> list[Any]:
        self.calls.append(value)
        return [value, [{"loss": 1.0, "waited": 0.0, "all": 1.0, "up": 2.0}, {"loss": 2.0, "waited": 0.0, "all": 3.0}]]


def test_what_is_logged_of_a_step_is_the_mean_over_its_parts_and_workers():
    """Of the terms by those that have them, in one exchange."""
    settings = TrainConfig(total_batch=4, micro_batch=2)
    recipe = Recipe(loss=Named(), save=lambda folder: None)
    training = Training(recipe, settings, Share.of(settings, 4, 1), BesideAnother())
    row = training.advance(iter([Numbers(torch.full((2, 4), 5.0)), Numbers(torch.full((2, 4), -4.0))]))
    ((first, second),) = BesideAnother.calls
    assert row["loss"] == pytest.approx((first["loss"] + second["loss"] + 3) / 4)
    assert (row["all"], row["up"], row["down"]) == ((5 - 4 + 1 + 3) / 4, (5 + 2) / 2, -4)


def test_learning_rate_warms_up_and_ends_at_zero():
    config = TrainConfig(num_steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(30, config) == 1.0
    assert learning_rate(75, config) == pytest.approx(0.5)
    assert learning_rate(100, config) == 0.0


def test_a_loss_that_is_not_finite_changes_nothing():
    training = regression()
    before = {name: value.clone() for name, value in training.parameters.items()}
    with pytest.raises(NotFinite, match="the loss is nan at step 0"):
        training.advance(iter([Numbers(torch.full((8, 4), math.nan))]))
    assert all(torch.equal(value, before[name]) for name, value in training.parameters.items())


def test_a_step_that_cannot_be_shared_says_so():
    with pytest.raises(ValueError, match="240 turntables a step cannot be shared by 7 workers"):
        Share.of(TrainConfig(total_batch=240), 2, 7)
    with pytest.raises(ValueError, match="30 turntables a step and worker are no multiple"):
        Share.of(TrainConfig(total_batch=240, micro_batch=4), 2, 8)
    assert Share.of(TrainConfig(total_batch=240, micro_batch=3), 2, 8).rounds == 10
