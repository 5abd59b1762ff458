import numpy as np
import pytest
import torch

from benchmarks.rasterize import Case, Options, measure
from benchmarks.roofline import PARTS, count_pairs, peak_gflops


def dense_pairs(case: Case) -> int:
    """Pairs that are blended, pixel by pixel as the semantics of gsplat say."""
    from recon.rasterize import rasterize

    leaves = {name: leaf.detach() for name, leaf in case.leaves.items()}
    cameras = {"viewmats": case.viewmats, "Ks": case.Ks, "width": case.size, "height": case.size}
    meta = rasterize(**leaves, **cameras, engine="cpu")[2]
    found, steps = 0, torch.arange(case.size) + 0.5
    for view in range(len(case.viewmats)):
        depths = meta["depths"][view]
        order = [int(i) for i in depths.argsort() if depths[i] > 0]
        transmittance = torch.ones(case.size, case.size)
        closed = torch.zeros(case.size, case.size, dtype=torch.bool)
        for i in order:
            dx, dy = steps[None] - meta["means2d"][view, i, 0], steps[:, None] - meta["means2d"][view, i, 1]
            a, b, c = meta["conics"][view, i]
            alpha = (leaves["opacities"][i] * torch.exp(-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy)).clamp(
                max=0.999
            )
            reached = ~closed & (alpha >= 1 / 255)
            after = transmittance * (1 - alpha)
            closed |= reached & (after <= 1e-4)
            taken = reached & ~closed
            transmittance = torch.where(taken, after, transmittance)
            found += int(taken.sum())
    return found


@pytest.mark.parametrize(("count", "size", "views"), [(60, 32, 1), (300, 40, 2)])
def test_pairs_are_those_of_a_dense_count(count, size, views):
    case = Case(count, size, views)
    useful, lanes = count_pairs(case.forward)
    wanted = dense_pairs(case)
    assert abs(useful - wanted) <= max(2, wanted // 1000), "but for pairs at the very threshold"
    assert useful < lanes


def test_a_row_has_times_a_share_under_one_and_parts_that_add_up():
    row = measure(200, 32, 2, 1, repeats=1, peak=1000.0)
    assert 0 < row["share"] < 1
    assert 0 < row["useful_lanes"] < 1
    assert row["ours_forward_ms"] > 0
    assert set(row["parts_ms"]) == {*PARTS, "rest"}
    assert all(value >= 0 for value in row["parts_ms"].values())
    assert "speedup" not in row, "plain torch renders one view only"


def test_the_peak_is_that_of_a_machine_with_vectors():
    assert 1 < peak_gflops(repeats=3) < 1000


def test_ours_and_plain_torch_agree_on_the_benchmarks_scene():
    case = Case(500, 32, 1)
    with torch.no_grad():
        np.testing.assert_allclose(case.ours(), case.plain(), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"), [({"limit": 0}, "limit is 0"), ({"threads": (0,)}, "threads"), ({"views": (17,)}, "views")]
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Options(**change)
