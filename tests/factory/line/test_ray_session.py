"""When Ray's start is tried again."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from factory.line.ray_session import START_ATTEMPTS, start_ray

SLOW = Exception("The current node timed out during startup. This could happen because some of the raylet failed")
GCS = RuntimeError("Failed to start GCS.  Last 2 lines of error files: ...")


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Outcomes of `ray.init`, one after the other: exceptions to raise, or None."""
    outcomes: list[Any] = []

    def init(address: str, **settings: Any) -> None:
        if error := outcomes.pop(0):
            raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return outcomes


@pytest.mark.parametrize("error", [SLOW, GCS, TimeoutError("30 seconds")])
def test_slow_start_is_tried_again(tries: list[Any], error: Exception) -> None:
    tries += [error, error, None]
    start_ray("local")
    assert not tries
    tries += [error] * START_ATTEMPTS
    with pytest.raises(RuntimeError, match="Ray did not start"):
        start_ray("local")
    assert not tries


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Attempting to cap object store memory usage at 10 bytes"),
        RuntimeError("Version mismatch: The cluster was started with Ray: 2.59.0"),
        PermissionError(13, "Permission denied: '/tmp/ray'"),
    ],
)
def test_nothing_else_is(tries: list[Any], error: Exception) -> None:
    tries += [error, None]
    with pytest.raises(RuntimeError, match="Ray did not start") as caught:
        start_ray("local")
    assert tries == [None]
    assert caught.value.__cause__ is error


def test_cluster_that_does_not_answer_is_named(tries: list[Any]) -> None:
    tries += [ConnectionError("no"), None]
    with pytest.raises(RuntimeError, match="no Ray cluster answers at 'ray://gone:10001'"):
        start_ray("ray://gone:10001")
    assert tries == [None]
