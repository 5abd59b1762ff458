"""What is kept of an exception."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from factory.line.failure import MAX_TRACE, Failure, is_too_large, place_of


def raised(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as caught:
        return Failure.of(caught)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_batch_that_did_not_fit_is_known(error: Exception) -> None:
    assert is_too_large(error)
    assert not raised(error).broken_device


@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), OSError(errno.ENOSPC, "No space left"), RuntimeError("shape '[2, 4]'")]
)
def test_other_errors_are_not_cured_by_a_smaller_batch(error: Exception) -> None:
    assert not is_too_large(error)


def test_numpy_says_memory_error() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert is_too_large(caught.value)


def test_broken_device_is_no_matter_of_the_batch() -> None:
    failure = raised(RuntimeError("CUDA error: device-side assert triggered"))
    assert failure.broken_device
    assert not failure.too_large


def test_dead_letter_gets_the_end_of_the_trace_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "correct-horse-battery")

    try:
        try:
            raise KeyError("before " * 1000)
        except KeyError as cause:
            raise ValueError("key correct-horse-battery \ud800") from cause
    except ValueError as error:
        failure = Failure.of(error)
    row: dict = {}
    failure.mark(row, "score")
    assert (row["error_stage"], row["error_type"]) == ("score", "ValueError")
    assert len(failure.trace) > len(row["error_trace"]) == MAX_TRACE
    assert row["error_trace"].rstrip().endswith("ValueError: key [hidden] ?")
    assert "correct-horse" not in str(row)
    assert place_of(row["error_trace"]).startswith("line/test_failure.py:")


def test_place_is_in_code_that_is_no_library() -> None:
    import torch

    def own() -> None:
        torch.zeros(2, 3).view(4)

    def named() -> None:
        torch.nn.functional.interpolate(torch.zeros(1), scale_factor=2)

    for call in (own, named):
        try:
            call()
        except Exception as error:
            trace = Failure.of(error).trace
        assert place_of(trace) == f"line/test_failure.py:{call.__code__.co_firstlineno + 1}"
    assert place_of('  File "/venv/lib/python3.11/site-packages/torch/nn/x.py", line 7, in f\n') == "nn/x.py:7"
    assert place_of(None) == place_of("no frames") == ""
