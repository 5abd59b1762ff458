"""Ray Data's loop in training does not turn without a pause."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from ray.data import DataContext

from factory.storage.store import StorageConfig
from factory.training.finetune import ray_feed
from factory.training.finetune.prepare import prepare
from factory.training.finetune.settings import WorkersConfig
from model.config import TrainConfig


def test_quick_steps_are_stretched_and_slow_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(ray_feed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_feed.time, "sleep", sleep)
    unhurried = ray_feed.ThrottledPolling()
    for took in (0.0, 0.01, 0.2):
        now[0] += took
        unhurried.on_execution_step(None)
    assert slept == [0.0, round(ray_feed.STEP_SECONDS - 0.01, 6), 0.0]


def test_every_stream_runs_with_it(monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tiny_pocket: Path) -> None:
    context = DataContext.get_current().copy()
    monkeypatch.setattr(ray_feed.DataContext, "get_current", lambda: context)
    monkeypatch.setattr(ray_feed.ray.data, "range", lambda *_, **__: MagicMock())
    places = (str(tiny_shards), str(tiny_pocket), str(tiny_pocket / "out"))
    run = prepare("temporal", *places, "train", TrainConfig(num_steps=2), WorkersConfig(), StorageConfig())
    ray_feed.Feed(run).dataset(rank=0, workers=1, step=0)
    assert ray_feed.ThrottledPolling in context.execution_callback_classes
