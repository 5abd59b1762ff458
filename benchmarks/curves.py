"""Draw curves and clouds of points as an SVG file that stands by itself: `curves`, `scatter`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.page import escape

WIDTH, HEIGHT, MARGIN, TITLE = 360, 220, 40, 24
COLORS = ("#27608b", "#888888", "#d2691e")
STYLE = "text{font:12px system-ui,sans-serif;fill:#444}path{fill:none;stroke-width:2}.axis{stroke:#bbb;stroke-width:1}"
Panel = tuple[str, np.ndarray, Sequence[np.ndarray]]
"""A title, x [N], and one or more series [N] over it, drawn blue, grey, orange."""


def curves(panels: Sequence[Panel]) -> str:
    """Panels side by side, each with its own axes."""
    drawn = "".join(f'<g transform="translate({k * WIDTH} 0)">{_panel(*panel)}</g>' for k, panel in enumerate(panels))
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n')  # fmt: skip


def scatter(title: str, x: np.ndarray, y: np.ndarray) -> str:
    """Points x [N], y [N] in a square that spans both alike, with the diagonal on which they are equal."""
    low, high, side = float(min(x.min(), y.min())), float(max(x.max(), y.max())), HEIGHT - 2 * TITLE
    across = MARGIN + (x - low) / (high - low) * side
    down = TITLE + side - (y - low) / (high - low) * side
    dots = "".join(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2"/>' for u, v in zip(across, down, strict=True))
    axis = f'<path class="axis" d="M{MARGIN} {TITLE}v{side}h{side}M{MARGIN} {TITLE + side}l{side} -{side}"/>'
    ends = (f'<text x="4" y="{TITLE + 8}">{high:.3g}</text><text x="4" y="{TITLE + side}">{low:.3g}</text>'
            f'<text x="{MARGIN}" y="{HEIGHT - 6}">{low:.3g}</text>'
            f'<text x="{MARGIN + side}" y="{HEIGHT - 6}" text-anchor="middle">{high:.3g}</text>')  # fmt: skip
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"><style>{STYLE}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/><text x="{MARGIN}" y="16">{escape(title)}</text>{axis}'
            f'<g fill="{COLORS[0]}" fill-opacity="0.6">{dots}</g>{ends}</svg>\n')  # fmt: skip


def _panel(title: str, x: np.ndarray, series: Sequence[np.ndarray]) -> str:
    low, high = float(min(map(np.min, series))), float(max(map(np.max, series)))
    pad = 0.05 * (high - low) or 0.5
    low, high = low - pad, high + pad
    across = MARGIN + (x - x[0]) / (x[-1] - x[0]) * (WIDTH - MARGIN - 12)
    bottom = HEIGHT - TITLE
    lines = []
    for values, color in zip(series, COLORS, strict=False):
        down = bottom - (values - low) / (high - low) * (bottom - TITLE)
        places = "L".join(f"{u:.1f} {v:.1f}" for u, v in zip(across, down, strict=True))
        lines.append(f'<path d="M{places}" stroke="{color}"/>')
    texts = [f'<text x="4" y="{bottom - (v - low) / (high - low) * (bottom - TITLE) + 4:.1f}">{v:.3g}</text>'
             for v in (low + pad, high - pad)]  # fmt: skip
    texts += [f'<text x="{u:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{v:g}</text>'
              for u, v in zip(across[1::4], x[1::4], strict=True)]  # fmt: skip
    axis = f'<path class="axis" d="M{MARGIN} {TITLE}V{bottom}H{WIDTH - 12}"/>'
    return f'<text x="{MARGIN}" y="16">{escape(title)}</text>{axis}{"".join(lines)}{"".join(texts)}'
