import pytest
from scipy import stats

from eval.ablation import Column, Line, ablation_table

COLUMNS = [
    Column(name="psnr", heading="PSNR"),
    Column(name="peak_bytes", heading="MB", digits=0, unit=1e6, tested=False),
]
FULL = {"a": 30.0, "b": 31.0, "c": 33.0, "d": 29.0}
WORSE = {"a": 28.0, "b": 29.5, "c": 30.0}


def scores(values):
    return {asset: {"psnr": value, "peak_bytes": 2e6} for asset, value in values.items()}


def test_cells_are_mean_and_deviation_and_the_paired_test_over_shared_assets():
    lines = [Line(variant="full", label="all"), Line(variant="worse", label="less")]
    table = ablation_table("t", "full", lines, {"full": scores(FULL), "worse": scores(WORSE)}, COLUMNS)
    assert table.columns == ("variant", "assets", "PSNR", "MB")
    assert table.rows[0] == ("all", "4", "30.75 ± 1.71", "2 ± 0")
    p = stats.ttest_rel([28.0, 29.5, 30.0], [30.0, 31.0, 33.0]).pvalue
    assert table.rows[1] == ("less", "3", f"29.17 ± 1.04 (p {p:.2g})", "2 ± 0")


def test_the_papers_scores_stand_beside_and_absent_variants_are_left_out():
    lines = [
        Line(variant="full", label="all", paper="IM-3D (paper)"),
        Line(variant="own", label="own"),
        Line(variant="absent", label="absent"),
    ]
    table = ablation_table("t", "full", lines, {"full": scores(FULL), "own": scores({"a": 1.0})}, COLUMNS)
    assert [row[:3] for row in table.rows] == [("all", "31.66 ± 1.7", "91.40 ± 5.5"), ("own", "—", "—")]
    assert table.rows[1][4] == "1.00", "one asset has neither deviation nor test"


def test_a_score_that_no_asset_has_is_a_dash():
    results = {"full": {"a": {"psnr": None}}}
    table = ablation_table("t", "full", [Line(variant="full", label="all")], results, COLUMNS)
    assert table.rows == [("all", "1", "—", "—")]


@pytest.mark.parametrize("label", ["- LPIPS", "w/ NeRF instead of GS", "4 (paper)"])
def test_labels_of_the_paper_are_found(label):
    table = ablation_table("t", "x", [Line(variant="x", label="x", paper=label)], {"x": scores(FULL)}, COLUMNS)
    assert "±" in table.rows[0][1]
