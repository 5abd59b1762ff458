"""Write a training run as one page without scripts, `report.html`: `write_report`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from eval.page import INLINE_POLICY, escape
from factory.storage.store import Store
from factory.training.finetune.recorder import SHEETS, Row, read_log, read_validations

WIDTH, HEIGHT, MARGIN = 520, 190, 44
MAX_POINTS = 400
NOISE_LEVELS = 4
"""Parts of the noise schedule that a diffusion loss is reported by, as in `model.pocket.losses`."""
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}"
    "figure{display:inline-block;margin:1rem 1.5rem 0 0}figcaption{font-weight:600}img{max-width:100%}"
    "svg text{font-size:12px;fill:#555}svg .axis{stroke:#ccc}"
)


def write_report(store: Store, title: str, notes: dict[str, str]) -> None:
    """Write `report.html` into a run's folder.

    Args:
        store: the run's output folder.
        title: what was trained.
        notes: figures for the table at the top, by name.
    """
    rows, validations = read_log(store), read_validations(store)
    sheets = list(store.keys(f"{SHEETS}/"))
    parts = [f"<h1>{escape(title)}</h1>", _table(summary(rows) | notes)]
    parts += [_figure("loss (mean of neighbours)", _points(rows, "loss"), _validation(validations, "loss"))]
    parts += [_figure("gradient norm", _points(rows, "grad_norm")), _figure("learning rate", _points(rows, "rate"))]
    terms = sorted({name for row in validations.values() for name in row if name != "loss"})
    parts += [_figure(f"validation: {_named(name)}", [], _validation(validations, name)) for name in terms]
    for key in sheets:
        step = int(key.rsplit("-", 1)[1].split(".")[0])
        parts.append(f'<h2>Sampled at step {step}</h2><img src="{escape(key)}" alt="sheet of step {step}">')
    quarantined = [json.loads(store.get(key)) for key in store.keys("quarantine/")]
    if quarantined:
        parts += ["<h2>Quarantined</h2>", _table({row["shard"]: row["reason"] for row in quarantined})]
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{INLINE_POLICY}">'
    page = f"<!doctype html><html lang=en><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>"
    store.put("report.html", f"{page}<body>{''.join(parts)}</body></html>\n".encode())


def _named(term: str) -> str:
    """A term of the loss in words; `level_k` is a quarter of the noise schedule."""
    if not term.startswith("level_"):
        return term
    part = int(term.removeprefix("level_"))
    return f"diffusion at noise {part / NOISE_LEVELS:.0%} to {(part + 1) / NOISE_LEVELS:.0%}"


def summary(rows: Sequence[Row]) -> dict[str, str]:
    """The figures of a run's log."""
    if not rows:
        return {}
    seconds = sum(row["seconds"] for row in rows)
    wait = sum(row["waited"] for row in rows) / max(seconds, 1e-9)
    return {
        "steps": str(int(rows[-1]["step"])),
        "loss, last tenth": f"{np.mean([row['loss'] for row in rows[-max(1, len(rows) // 10) :]]):.5f}",
        "seconds in steps": f"{seconds:.0f}",
        "median seconds a step": f"{np.median([row['seconds'] for row in rows]):.3f}",
        "share of waiting for data": f"{wait:.1%}",
    }


def _points(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """Steps and values, neighbours averaged down to `MAX_POINTS`."""
    found = [(row["step"], row[name]) for row in rows if name in row and np.isfinite(row[name])]
    parts = np.array_split(np.array(found).reshape(-1, 2), min(len(found), MAX_POINTS) or 1)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts if len(part)]


def _validation(validations: dict[int, Row], name: str) -> list[tuple[float, float]]:
    return [(float(step), row[name]) for step, row in validations.items() if name in row and np.isfinite(row[name])]


def _figure(title: str, *curves: list[tuple[float, float]]) -> str:
    """Curves over steps as SVG; the second one is the validation's, in orange."""
    points = [point for curve in curves for point in curve]
    if not points:
        return ""
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    lines = []
    for curve, color in zip(curves, ("#27608b", "#d2691e"), strict=False):
        places = " ".join(
            f"{_scaled(x, x0, x1, WIDTH):.1f},{HEIGHT - _scaled(y, y0, y1, HEIGHT):.1f}" for x, y in curve
        )
        lines.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    labels = [(2, 14, f"{y1:.4g}"), (2, HEIGHT - 28, f"{y0:.4g}"), (MARGIN, HEIGHT - 8, f"{x0:.0f}"),
              (WIDTH - MARGIN, HEIGHT - 8, f"{x1:.0f}")]  # fmt: skip
    texts = "".join(f'<text x="{x}" y="{y}">{label}</text>' for x, y, label in labels)
    texts += f'<path class="axis" d="M{MARGIN} {HEIGHT - MARGIN / 2}H{WIDTH - MARGIN}"/>'
    svg = (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(lines)}{texts}</svg>'
    )
    legend = " · blue: training, orange: validation" if all(curves) and len(curves) > 1 else ""
    return f"<figure><figcaption>{escape(title)}{legend}</figcaption>{svg}</figure>"


def _scaled(value: float, low: float, high: float, size: int) -> float:
    """A value in [low, high] to pixels between the margins."""
    share = (value - low) / (high - low) if high > low else 0.5
    return MARGIN + share * (size - 2 * MARGIN)


def _table(values: dict[str, str]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in values.items())
    return f"<table>{''.join(rows)}</table>"
