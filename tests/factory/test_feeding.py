"""Ray Data's loop in training does not turn without a pause."""

from __future__ import annotations

import pytest

from factory import feeding


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


def test_ray_data_takes_it_for_an_execution_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data import DataContext
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    assert issubclass(feeding.Unhurried, ExecutionCallback)
    context = DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [feeding.Unhurried])
    assert feeding.Unhurried in context.execution_callback_classes
