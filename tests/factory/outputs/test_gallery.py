"""The page of a run: everything on it is escaped, and every file it names exists."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from factory.config.settings import FactoryConfig
from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.outputs.gallery import write_gallery
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.local import LocalStore

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> & "quotes"'
SCHEMA = assets_schema(written_columns(), ["clip_text_renders_small", "clip_image_renders_small"])


class Page(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def run(root: Path) -> Page:
    store = LocalStore(str(root))
    folder = "files/p 1-abc"
    for name in ("image.png", "turntable.mp4", "generated.mp4", "asset.ply"):
        store.put(f"{folder}/{name}", b"x")
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {"prompt_id": "p1", "prompt": HOSTILE, "seed": 5, "elevation": 0.5, "num_gaussians": 12345}
    row |= {"ply": {"path": f"{folder}/asset.ply"}, "seconds_video": 2.0, "seconds_reconstruct": 40.0}
    row |= {"clip_text_renders_small": 27.34, "forwards_video": 40, "forwards_refine": 40}
    commit(store, row, SCHEMA)
    letter = dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "../<b>", "prompt": HOSTILE}
    letter |= {"error_stage": "video", "error_type": "ValueError", "error_message": HOSTILE}
    commit(store, letter, DEAD_LETTERS)
    ledger = Ledger(store)
    ledger.publish()
    write_gallery(store, ledger, FactoryConfig())
    return Page((root / "index.html").read_text())


def test_page_escapes_and_links(tmp_path: Path) -> None:
    page = run(tmp_path)
    assert page.tags.count("article") == 1
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.text.count(HOSTILE) == 3
    assert "../<b>" in page.text
    assert all((tmp_path / unquote(link)).is_file() for link in page.links)
    assert not [link for link in page.links if "://" in link]


def test_page_shows_scores_times_and_counts(tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", run(tmp_path).text)
    assert "1 asset, 1 dead letter" in text
    assert "CLIP text, renders27.3" in text
    assert "forwards80" in text
    assert "Gaussians12,345" in text
    assert "elevation29°" in text
    assert "reconstruct 40.0 s" in text
    assert "total 42.0 s" in text
