"""Write a static page of a run with pictures, scores, timings and dead letters: `write_gallery`. Needs no network."""

from __future__ import annotations

from html import escape
from itertools import cycle
from typing import Any
from urllib.parse import quote

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import by_part
from factory.line.failure import place_of
from factory.storage.store import Store

MAX_CARDS = 500
"""Only the newest assets are shown, and as many dead letters: a page of a million cards opens nowhere."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e3e6ec; --paper: #f6f7f9; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaf0; --soft: #98a2b3; --line: #2c3340; --paper: #12151b; --card: #1a1f28; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 40px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 26px; letter-spacing: -.02em; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 48px 0 12px; }
.sub { color: var(--soft); margin: 0 0 28px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
  display: flex; flex-direction: column; }
.media { display: grid; grid-template-columns: 1fr 1fr; background: #fff; }
.media figure { margin: 0; padding: 8px 8px 0; }
.media img, .media video { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; }
.media figcaption { text-align: center; font-size: 11px; color: #667085; padding: 0 0 8px; }
.body { padding: 14px 16px 16px; border-top: 1px solid var(--line); display: flex; flex-direction: column;
  gap: 10px; flex: 1; }
.prompt { font-weight: 600; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(4, auto); gap: 6px 10px; margin: 0; }
dl div { min-width: 0; }
dt { font-size: 11px; color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: 6px; border-radius: 3px; overflow: hidden; background: var(--line); }
.bar i { display: block; }
.legend { font-size: 11px; color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 12px; }
.legend b { display: inline-block; width: 8px; height: 8px; border-radius: 2px; margin-right: 4px; }
.links { font-size: 12px; display: flex; gap: 14px; margin-top: auto; }
a { color: #3b6fd4; text-decoration: none; } a:hover { text-decoration: underline; }
.id { color: var(--soft); margin-left: auto; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  max-width: 55%; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line);
  font-size: 13px; }
td, th { text-align: left; padding: 8px 12px; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
"""
_POLICY = "default-src 'none'; img-src 'self' file:; media-src 'self' file:; style-src 'unsafe-inline'"
_COLOURS = (
    "#8b7cf6",
    "#3b82f6",
    "#14b8a6",
    "#f59e0b",
    "#ef6a6a",
    "#a3a847",
    "#d36bc6",
    "#7c8aa5",
    "#4db6e2",
    "#b8794e",
)
"""Of the stages, in order."""


def write_gallery(store: Store, ledger: Ledger, config: FactoryConfig) -> None:
    """Write `index.html` of everything published in an output folder."""
    assets, dead = (list(ledger.rows(folder, newest=MAX_CARDS)) for folder in (ASSETS, DEAD))
    page = _page(assets, dead, len(ledger.done), len(ledger.dead), config)
    store.put("index.html", page.encode())


def _page(assets: list[dict], dead: list[dict], num_assets: int, num_dead: int, config: FactoryConfig) -> str:
    counted = f"{num_assets} asset{'s' * (num_assets != 1)}, {num_dead} dead letter{'s' * (num_dead != 1)}"
    shown = f", the newest {len(assets)} shown" if len(assets) < num_assets else ""
    models = f"{config.image.model} → {config.video.model} → {config.fit.iterations} iterations of fitting"
    models += f" · scores by CLIP {', '.join((config.clip.model, *config.clip.beside))}, 100 × cosine"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{counted}</title>
<style>{_STYLE}</style>
<h1>Text to 3D</h1>
<p class="sub">{counted}{shown} · {escape(models)}</p>
<main class="grid">
{"".join(_card(row, config.quality.min > 0) for row in assets)}</main>
{_dead_section(dead)}</html>
"""


def _card(row: dict[str, Any], gated: bool) -> str:
    """An asset; `usable` is shown where it decides, which it does not before it is calibrated on such assets."""
    folder = row["ply"]["path"].rsplit("/", 1)[0]
    files = {name: quote(f"{folder}/{name}") for name in ("image.png", "turntable.mp4", "generated.mp4", "asset.ply")}
    name = f"{escape(row['prompt_id'])} · seed {row['seed']}"
    links = "".join(
        f'<a href="{files[name]}">{text}</a>'
        for name, text in (("asset.ply", "Gaussians"), ("generated.mp4", "generated frames"))
        if name != "generated.mp4" or row["generated"]
    )
    return f"""<article class="card">
<div class="media">
<figure><img src="{files["image.png"]}" alt="reference image" loading="lazy">
<figcaption>{_origin(row)}</figcaption></figure>
<figure><video src="{files["turntable.mp4"]}" autoplay loop muted playsinline></video>
<figcaption>3D</figcaption></figure>
</div>
<div class="body">
<div class="prompt">{escape(row["prompt"]) or "(no prompt)"}</div>
<dl>{_facts(row, gated)}</dl>
{_timing(row)}
<div class="links">{links}<span class="id" title="{name}">{name}</span></div>
</div></article>
"""


def _origin(row: dict[str, Any]) -> str:
    return "given image" if row.get("from_image") else "generated image"


def _facts(row: dict[str, Any], gated: bool) -> str:
    scores = {name: value for name, value in row.items() if name.startswith("clip_") and value is not None}
    facts = {}
    for name, value in scores.items():
        _, kind, what, model = name.split("_", 3)
        facts[f"CLIP {kind}, {what}"] = (f"{value:.1f}", model)
    if gated and row.get("usable") is not None:
        facts["usable"] = (f"{row['usable']:.0%}", "; ".join(row["quality_reasons"] or []))
    forwards = sum(row[name] or 0 for name in by_part(row, "forwards").values())
    facts["elevation"] = (f"{row['elevation'] * 180 / 3.141592653589793:.0f}°", "")
    if row.get("num_gaussians") is not None:
        facts["Gaussians"] = (f"{row['num_gaussians']:,}", "")
    facts["forwards"] = (str(forwards), "network evaluations, guidance counted twice")
    return "".join(
        f'<div title="{escape(hint)}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
        for name, (value, hint) in facts.items()
    )


def _timing(row: dict[str, Any]) -> str:
    seconds = {name: row[column] or 0.0 for name, column in by_part(row, "seconds").items()}
    total = sum(seconds.values()) or 1.0
    bars = legend = ""
    for (name, value), colour in zip(seconds.items(), cycle(_COLOURS)):
        bars += f'<i style="width:{100 * value / total:.2f}%;background:{colour}"></i>'
        legend += f'<span><b style="background:{colour}"></b>{name} {value:.1f} s</span>'
    legend += f"<span>total {sum(seconds.values()):.1f} s</span>"
    return f'<div class="bar">{bars}</div><div class="legend">{legend}</div>'


def _dead_section(dead: list[dict[str, Any]]) -> str:
    if not dead:
        return ""
    names = ("prompt_id", "prompt", "error_stage", "error_type", "error_message")
    head = "".join(f"<th>{name.replace('error_', '').replace('_', ' ')}</th>" for name in (*names, "place"))
    rows = ""
    for row in dead:
        cells = [*(str(row[name] or "") for name in names), place_of(row.get("error_trace"))]
        rows += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
    return f"<h2>Dead letters</h2>\n<table><tr>{head}</tr>\n{rows}</table>\n"
