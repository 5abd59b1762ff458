"""The generators at their published sizes on the meta device: counts of parameters, and every shape of a step."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from benchmarks.full_size import FULL_SIZES, META, FullSize, PeakBytes, attention_without_scores
from benchmarks.gpu_models import in_training
from model.temporal import is_temporal

EXACT = {
    "SDXL": 2_567_463_684,
    "SV3D_u": 1_523_967_722,
    "SV3D_p": 1_525_278_442,
    "Stable Video Diffusion": 1_524_623_082,
}
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


def test_a_training_step_reaches_every_temporal_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable Video Diffusion at full size, activations recomputed; there is no autocast on the meta device."""
    monkeypatch.setattr("model.latent_training.autocast", lambda *_: nullcontext())
    row = next(one for one in FULL_SIZES if one.name == "Stable Video Diffusion")
    loss, batch, trained = in_training(row, META, recomputed=True, precision="float32")
    value, _ = loss(batch, torch.Generator().manual_seed(0))
    value.backward()
    assert sum(parameter.numel() for parameter in trained) / 1e9 == pytest.approx(0.656, abs=0.001)
    assert all(parameter.grad is not None and parameter.grad.shape == parameter.shape for parameter in trained)
