"""The benchmark of consistency: rank correlations of known rows."""

from __future__ import annotations

import math

import pytest

from benchmarks.consistency import AGAINST, correlations


def test_correlations_are_of_ranks_and_leave_out_what_is_missing() -> None:
    rows = [{"a": x, "b": None, "psnr_renders": x**3, "lpips_pocket_renders": -x, "mask_iou_renders": None}
            | {"chamfer": x % 2}
            for x in (1.0, 2.0, 3.0, 4.0, 5.0)]  # fmt: skip
    rows.append(dict.fromkeys(rows[0]))
    found = correlations(rows, ("a", "b"))
    assert list(found["a"]) == list(AGAINST)
    assert (found["a"]["psnr_renders"], found["a"]["lpips_pocket_renders"]) == pytest.approx((1, -1))
    assert math.isnan(found["a"]["mask_iou_renders"])
    assert abs(found["a"]["chamfer"]) < 0.5
    assert math.isnan(found["b"]["psnr_renders"])
