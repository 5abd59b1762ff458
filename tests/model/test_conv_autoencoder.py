"""The convolutional autoencoder: its closed-form maps, what the decoder sees, and the optimiser that trains it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.config import Share, TrainConfig
from model.muon import Muon, orthogonalised
from model.pocket.conv_autoencoder import ConvAutoencoder
from model.pocket.data import Batch
from model.pocket.load import load_autoencoder
from model.pocket.losses import AutoencoderLoss
from model.pocket.recipes import save_half
from model.training import Recipe, Training

SMALL = {
    "latent_channels": 8, "encoder_widths": (16, 16), "decoder_widths": (16, 16, 8), "encoder_depth": 1,
    "decoder_depth": 1,
}  # fmt: skip


def blocks(seed: int, count: int = 16) -> Batch:
    """Views of coloured blocks, [count,1,32,32,4]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 1, 4, 4, 4), generator=generator)
    coarse[..., 3] = 255
    frames = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)
    return Batch(
        frames=frames, captions=["a block"] * count, azimuths=torch.zeros(count, 1), elevations=torch.zeros(count)
    )


def endless() -> Iterator[Batch]:
    return (blocks(seed) for seed in itertools.count())


def trained(steps: int, **config) -> AutoencoderLoss:
    torch.manual_seed(0)
    settings = TrainConfig(precision="float32", warmup_steps=1, num_steps=steps, optimizer="muon", **config)
    loss = AutoencoderLoss(ConvAutoencoder(**SMALL), settings)
    recipe = Recipe(loss=loss, save=lambda folder: None, gathered=("moments.",))
    training = Training(recipe, settings, Share.of(settings, 16, 1))
    batches = endless()
    for _ in range(steps):
        training.advance(batches)
    return loss.eval()


def test_latents_are_ordered_by_their_effect_and_the_decoder_gets_standard_tokens_back():
    loss = trained(5).train()
    for seed in range(60):
        loss(blocks(seed), torch.Generator().manual_seed(seed))
    loss.eval().calibrated()
    model, images = loss.model, blocks(99, 64).videos().flatten(0, 1)
    with torch.no_grad():
        latents = model.encode(images)
        variance = latents.transpose(0, 1).flatten(1).var(1)
        assert 0.5 < variance.mean() < 2
        assert variance[:4].sum() > variance[4:].sum()
        assert torch.allclose(model.decoder.unmix(latents), loss._tokens(images), atol=0.1)


def test_training_lowers_the_loss():
    loss = AutoencoderLoss(ConvAutoencoder(**SMALL), TrainConfig(precision="float32")).eval()
    first, last = (model(blocks(99), torch.Generator().manual_seed(0))[0].item() for model in (loss, trained(40)))
    assert last < 0.8 * first


def test_weights_survive_the_file(tmp_path: Path):
    loss = trained(2)
    loss.calibrated()
    save_half(loss.model, tmp_path)
    again = load_autoencoder(tmp_path)
    images = blocks(1).frames
    assert isinstance(again, ConvAutoencoder)
    assert torch.allclose(again.encode_frames(images), loss.model.encode_frames(images), atol=0.05)
    assert again.decode_frames(again.encode_frames(images)).shape == images.shape


def test_a_frozen_encoder_keeps_its_latents():
    loss = trained(2)
    loss.calibrated()
    model = loss.model
    model.encoder.requires_grad_(False)
    before = model.encode_frames(blocks(1).frames)
    settings = TrainConfig(precision="float32", num_steps=3, warmup_steps=1)
    decoder = AutoencoderLoss(model, settings)
    training = Training(Recipe(loss=decoder, save=lambda folder: None), settings, Share.of(settings, 16, 1))
    training.advance(endless())
    decoder.calibrated()
    assert torch.equal(model.encode_frames(blocks(1).frames), before)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        ConvAutoencoder(**SMALL).encode(torch.zeros(1, 4, 40, 32))
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvAutoencoder(latent_channels=6)


@pytest.mark.parametrize("shape", [(32, 96), (96, 32), (48, 48)])
def test_orthogonalised_matrices_have_singular_values_of_about_one(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw():
    """The first update of a matrix has the size that AdamW's has, whatever the gradient's."""
    torch.manual_seed(0)
    matrix, bias = torch.nn.Parameter(torch.zeros(64, 64)), torch.nn.Parameter(torch.zeros(64))
    optimizer = Muon([matrix, bias], weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    matrix.grad, bias.grad = 1e-3 * torch.randn(64, 64), 1e-3 * torch.randn(64)
    optimizer.step()
    assert 0.015 < matrix.detach().square().mean().sqrt() < 0.025
    assert torch.allclose(bias.detach().abs(), torch.full((64,), 0.1), atol=1e-3)
    assert set(optimizer.state[matrix]) == {"exp_avg"}
