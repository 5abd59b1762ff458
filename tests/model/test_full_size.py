"""The generators at their published sizes on the meta device: counts of parameters, and every shape of a step."""

from typing import Any

import pytest
import torch

from benchmarks.full_size import FULL_SIZES, META, FullSize, PeakBytes, attention_without_scores
from benchmarks.full_training import in_training, losses_without_values, trainable
from model.temporal import is_temporal

EXACT = {
    "SDXL": 2_567_463_684,
    "SV3D_u": 1_523_967_722,
    "SV3D_p": 1_525_278_442,
    "Stable Video Diffusion": 1_524_623_082,
}
MOVING = {"I2VGen-XL": 0.545, "SV3D_u": 0.656, "Stable Video Diffusion": 0.656,
          "Wan 2.1 I2V 14B": 40 * 32 * (8 * 2 * 5120 + 2 * (5120 + 13824)) / 1e9,
          "Wan 2.2 TI2V 5B": 30 * 32 * (8 * 2 * 3072 + 2 * (3072 + 14336)) / 1e9}  # fmt: skip
"""Trained parameters, in units of 1e9: the temporal layers as published; rank 32 of eight square layers a block and of
two to and from the feed-forward width."""
TEMPORAL = {"I2VGen-XL": (0.545, "i2vgen-xl"), "SV3D_u": (0.656, "svd"), "Stable Video Diffusion": (0.656, "svd")}


@pytest.mark.parametrize("row", FULL_SIZES, ids=lambda row: row.name)
def test_sizes_and_shapes(row: FullSize) -> None:
    model: Any = row.build()
    network = model.parts.networks[model.network_name] if row.family else model
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e9 == pytest.approx(row.parameters, rel=0.005)
    assert EXACT.get(row.name, count) == count
    if row.name in TEMPORAL:
        published, family = TEMPORAL[row.name]
        moving = sum(p.numel() for name, p in network.named_parameters() if is_temporal(name, family))  # type: ignore[arg-type]
        assert moving / 1e9 == pytest.approx(published, abs=0.002)
    if row.name == "SV3D_p":
        assert len(model.frame_vectors.blocks) == 22
    with torch.no_grad(), attention_without_scores():
        made = row.step(model)
        if not row.family:
            assert made.shape == (2, 4, 128, 128)
            return
        shape = model.latent_shape(row.size)
        assert made.shape == (1, *shape)
        assert made.dtype == torch.float32
        video = torch.zeros(row.frames, 3, row.size, row.size, device=META)
        assert model.encode(video).shape == shape  # what a refinement starts from
        assert model.decode(torch.zeros(shape, device=META)).shape == video.shape


def test_the_peak_counts_what_is_alive_at_once() -> None:
    layer = torch.nn.Linear(256, 256, device="meta")
    with torch.no_grad(), PeakBytes([layer]) as peak:
        first = layer(torch.zeros(1024, 256, device="meta"))
        del first
        layer(torch.zeros(1024, 256, device="meta"))
    assert peak.peak == 2 * 1024 * 256 * 4  # an input and an output: no weights, nothing that is gone


@pytest.mark.parametrize("row", trainable(), ids=lambda row: row.name)
def test_a_training_step_reaches_every_trained_parameter(row: FullSize) -> None:
    """At the published size, activations recomputed."""
    with losses_without_values(), attention_without_scores():
        made = in_training(row, META)
        value, _ = made.loss(made.batch, torch.Generator().manual_seed(0))
        value.backward()
    count = sum(parameter.numel() for parameter in made.trained)
    assert count / 1e9 == pytest.approx(MOVING[row.name], rel=0.002)
    assert all(p.grad is not None and p.grad.shape == p.shape and p.dtype == torch.float32 for p in made.trained)
