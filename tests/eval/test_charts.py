"""Histograms: bars as tall as shares, read from the SVG itself."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from eval.charts import HEIGHT, WIDTH, histogram, num_bins, share_bar
from eval.page import money


def bars(svg: str) -> list[tuple[float, float]]:
    """Left side and height of each bar."""
    root = ElementTree.fromstring(svg)
    return [(float(bar.attrib["x"]), float(bar.attrib["height"])) for bar in root.iter("rect")]


def test_heights_are_in_proportion_to_counts() -> None:
    values = np.array([0.0] * 4 + [1.0] * 2 + [8.0])
    found = bars(histogram("scores", values))
    assert len(found) == 3
    heights = np.array([height for _, height in found])
    np.testing.assert_allclose(heights / heights[0], [1, 0.5, 0.25], atol=0.01)
    assert max(x for x, _ in found) < WIDTH
    assert heights[0] < HEIGHT


def test_what_is_not_finite_is_left_out_and_equal_values_are_one_bar() -> None:
    assert len(bars(histogram("x", np.array([3.0, 3.0, np.nan])))) == 1
    assert "no values" in histogram("<x>", np.array([np.nan]))
    assert "<x>" not in histogram("<x>", np.array([np.nan]))


def test_the_text_of_a_chart_is_escaped_and_says_what_is_seen() -> None:
    root = ElementTree.fromstring(histogram('"<b>"', np.arange(11.0), np.arange(5.0)))
    assert root.attrib["aria-label"] == '"<b>": 11 values from 0 to 10, median 5'
    assert [path.attrib["class"] for path in root.iter("path")] == ["other", "median", "axis"]


def test_bars_grow_with_the_number_of_values() -> None:
    assert [num_bins(count) for count in (1, 100, 1000, 100_000)] == [8, 14, 30, 40]


def test_share_bar_is_clipped() -> None:
    widths = [ElementTree.fromstring(share_bar(share))[1].attrib["width"] for share in (-1, 0.25, 3)]
    assert widths == ["0.00", "25.00", "100.00"]


@pytest.mark.parametrize(
    ("dollars", "text"), [(0, "$0.00"), (1234.5, "$1,234.50"), (0.25, "$0.25"), (0.0000464, "$0.000046")]
)
def test_money(dollars: float, text: str) -> None:
    assert money(dollars) == text
