"""Draw charts as SVG that stands in a page, without scripts or style attributes: `histogram`, `share_bar`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.page import escape

MIN_BINS, MAX_BINS = 8, 40
WIDTH, HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 16, 22


def histogram(title: str, values: NDArray[np.float64], other: NDArray[np.float64] | None = None) -> str:
    """The distribution of finite `values` [N] as bars, and of `other` [M] as a line; shares, so that N may differ M.

    A dashed line marks the median of `values`. Without any value it says so.
    """
    values, other = _finite(values), None if other is None else _finite(other)
    if not len(values):
        return f'<p class="soft">{escape(title)}: no values</p>'
    both = values if other is None else np.concatenate([values, other])
    low, high = float(both.min()), float(both.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, num_bins(len(values)) + 1)
    bars = np.histogram(values, edges)[0] / len(values)
    line = np.histogram(other, edges)[0] / len(other) if other is not None and len(other) else None
    top = max(bars.max(), line.max() if line is not None else 0.0)
    median = float(np.median(values))
    said = f"{title}: {len(values)} values from {_text(values.min())} to {_text(values.max())}, median {_text(median)}"
    parts = [_bars(bars / top), _outline(line / top) if line is not None else "", _mark(_x(median, low, high), median)]
    axis = HEIGHT - _BOTTOM
    parts.append(f'<path class="axis" d="M{_LEFT} {axis}H{WIDTH - _RIGHT}"/>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 6}">{_text(low)}</text>')
    parts.append(f'<text class="end" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}">{_text(high)}</text>')
    start = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
    return start + "".join(parts) + "</svg>"


def num_bins(count: int) -> int:
    """Bars for `count` values: 3 count^(1/3), in [MIN_BINS, MAX_BINS]."""
    return int(np.clip(round(3 * count ** (1 / 3)), MIN_BINS, MAX_BINS))


def share_bar(share: float) -> str:
    """A bar that fills `share` in [0, 1] of its width."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="8"/><rect class="fill" width="{width:.2f}" height="8"/></svg>'
    )


def _bars(shares: NDArray[np.float64]) -> str:
    step, inner = (WIDTH - _LEFT - _RIGHT) / len(shares), HEIGHT - _TOP - _BOTTOM
    return "".join(
        f'<rect class="fill" x="{_LEFT + k * step + 0.5:.1f}" y="{HEIGHT - _BOTTOM - share * inner:.1f}" '
        f'width="{step - 1:.1f}" height="{share * inner:.1f}"/>'
        for k, share in enumerate(shares)
        if share > 0
    )


def _outline(shares: NDArray[np.float64]) -> str:
    step, inner, path = (WIDTH - _LEFT - _RIGHT) / len(shares), HEIGHT - _TOP - _BOTTOM, f"M{_LEFT} {HEIGHT - _BOTTOM}"
    for k, share in enumerate(shares):
        path += f"V{HEIGHT - _BOTTOM - share * inner:.1f}H{_LEFT + (k + 1) * step:.1f}"
    return f'<path class="other" d="{path}V{HEIGHT - _BOTTOM}"/>'


def _mark(x: float, value: float) -> str:
    side = "end" if x > WIDTH / 2 else "start"
    return (
        f'<path class="median" d="M{x:.1f} {_TOP - 4}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="{side}" x="{x + (-4 if side == "end" else 4):.1f}" y="{_TOP - 5}">median {_text(value)}</text>'
    )


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _text(value: float) -> str:
    return f"{value:.4g}"
