"""Which device a stage's models get, and what its process sees of the GPUs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from factory.config.settings import FactoryConfig, preset
from factory.line.device import device_for, hide_gpus
from factory.line.placement import Pool
from factory.line.pool_flags import merged
from factory.line.settings import LineConfig
from factory.stages.preflight import preflight
from recon.config import RefineConfig


def test_automatic_device_follows_the_share_of_a_gpu() -> None:
    assert device_for("auto", Pool(gpus=0.2), "video") == "cuda"
    assert device_for("auto", Pool(), "video") == "cpu"
    assert device_for("cpu", Pool(gpus=1), "video") == "cpu"
    assert device_for("cuda", Pool(gpus=1), "video") == "cuda"


@pytest.mark.parametrize("stage", ["image", "video", "reconstruct"])
def test_cuda_without_a_share_is_refused_before_anything_starts(stage: str) -> None:
    config = preset("paper")
    pools = merged(config.line.pools, {stage: {"gpus": 0.0}})
    line = replace(config.line, address="auto", pools=pools)
    with pytest.raises(ValueError, match=f"stage {stage} .* reserves no GPU"):
        preflight(replace(config, line=line))
    preflight(replace(config, line=replace(config.line, address="auto")))
    pools = merged(config.line.pools, {"reconstruct": {"gpus": 0.0}})
    idle = replace(config, refine=RefineConfig(rounds_at=()), line=LineConfig(address="auto", pools=pools))
    preflight(idle)  # the fit is automatic, and there the video model has nothing to do
    preflight(FactoryConfig(line=LineConfig(address="auto")))


def test_process_without_a_share_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    hide_gpus(Pool(gpus=0.5))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    hide_gpus(Pool())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
