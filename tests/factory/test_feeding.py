"""Ray Data's loop in training does not turn without a pause."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from ray.data import DataContext

from factory import feeding
from factory.controller import prepare
from factory.store import StorageConfig
from factory.training_run import WorkersConfig
from model.config import TrainConfig


def test_quick_steps_are_stretched_and_slow_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(feeding.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(feeding.time, "sleep", sleep)
    unhurried = feeding.Unhurried()
    for took in (0.0, 0.01, 0.2):
        now[0] += took
        unhurried.on_execution_step(None)
    assert slept == [0.0, round(feeding.STEP_SECONDS - 0.01, 6), 0.0]


def test_every_stream_runs_with_it(monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tiny_pocket: Path) -> None:
    context = DataContext.get_current().copy()
    monkeypatch.setattr(feeding.DataContext, "get_current", lambda: context)
    monkeypatch.setattr(feeding.ray.data, "range", lambda *_, **__: MagicMock())
    places = (str(tiny_shards), str(tiny_pocket), str(tiny_pocket / "out"))
    run = prepare("temporal", *places, "train", TrainConfig(num_steps=2), WorkersConfig(), StorageConfig())
    feeding.Feed(run).dataset(rank=0, workers=1, step=0)
    assert feeding.Unhurried in context.execution_callback_classes
