"""The report in a real browser: what it shows, that nothing on it runs, and a hundred thousand assets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from factory.config.settings import FactoryConfig, YieldConfig, run_settings
from factory.evaluation.line import SCORE_DEAD_LETTERS
from factory.ledger import run_identity
from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.local import LocalStore
from jobs import report
from recon.video_io import encode_mp4

HOSTILE = '<img src=x onerror="document.title=1"> </script> a cup'
TEXT, IMAGE = "clip_text_renders_small", "clip_image_renders_small"
SCHEMA = assets_schema(written_columns(), [IMAGE, TEXT])
WAIT = 60_000


def asset(number: int, prompt: str, score: float, **values: Any) -> dict[str, Any]:
    folder = f"files/a{number}-0"
    row = dict.fromkeys(SCHEMA.names) | {"prompt_id": f"a{number}", "prompt": prompt, "seed": number}
    row |= {"ply": {"path": f"{folder}/asset.ply"}, TEXT: score, IMAGE: score / 2, "seconds_reconstruct": 10.0}
    row |= {"forwards_video": 4, "forwards_refine": 20, "cost_dollars": 0.01, "num_gaussians": 5000, "yield_score": 0.1}
    return row | values


def write_run(root: Path, scores: list[float], config: FactoryConfig | None = None, gate: bool = True) -> Path:
    """A run of an asset a score with pictures, three dead letters, and the settings; `gate`: every fifth is flagged."""
    store = LocalStore(str(root))
    run_identity.write(store, run_settings(config or FactoryConfig()), None)
    Image.new("RGB", (16, 16), "red").save(root / "square.png")
    picture, video = (root / "square.png").read_bytes(), encode_mp4(np.full((4, 32, 32, 3), 90, np.uint8))
    for number, score in enumerate(scores):
        prompt = HOSTILE if number == 0 else f"a running horse {number}" if number % 5 == 4 else f"a box {number}"
        row = asset(number, prompt, score, yield_score=(0.9 if number % 5 == 4 else 0.1) if gate else None)
        folder = root / f"files/a{number}-0"
        (folder / "views").mkdir(parents=True)
        for name in ("image.png", *(f"views/{k:02d}.png" for k in range(0, 16, 4))):
            (folder / name).write_bytes(picture)
        for name in ("turntable.mp4", "generated.mp4"):
            (folder / name).write_bytes(video)
        commit(store, row, SCHEMA)
    letter = dict.fromkeys(DEAD_LETTERS.names) | {"prompt": HOSTILE, "error_message": HOSTILE}
    for name, stage in (("../<b>", "video"), ("d2", "video"), ("d3", "prompts")):
        known = {"prompt_id": name, "error_stage": stage, "error_type": "ValueError"}
        trace = 'File "/job/my_stages/hull.py", line 41, in process' if stage == "video" else None
        commit(store, letter | known | {"error_trace": trace}, DEAD_LETTERS)
    Ledger(store).publish()
    return root


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of the same thirty prompts; the first scores 2 higher, except on one."""
    root = tmp_path_factory.mktemp("report pair")
    config = FactoryConfig(yields=YieldConfig(enabled=True))
    own = write_run(root / "mine & <b>", [20.0 + k for k in range(30)], config)
    store = LocalStore(str(own))
    store.put("exports/html/a29.html", b"<!doctype html><title>viewer</title><p id=there>turning</p>")
    other = write_run(root / "other", [18.0 + k if k else 40.0 for k in range(30)], config)
    assert report.main(["--run", str(own), "--against", str(other)]) == 0
    return own, other


def open_page(browser: Any, path: Path, **context: Any) -> Any:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(WAIT)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("#cards li")
    return page


def page_of(run: Path) -> Path:
    """Where `im3d report` puts a run's page by default."""
    return Path(f"{run}-report", "report.html")


def cards(page: Any) -> list[str]:
    return page.evaluate("() => [...document.querySelectorAll('#cards .prompt')].map((e) => e.textContent)")


def tables(page: Any, caption: str) -> list[list[str]]:
    """The body cells of the table with this caption."""
    return page.evaluate(
        """(caption) => [...document.querySelectorAll('table')].filter((t) => t.caption.textContent === caption)
        .flatMap((t) => [...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => c.textContent)))""",
        caption,
    )


def test_figures_and_sheets(browser: Any, pair: tuple[Path, Path]) -> None:
    page = open_page(browser, page_of(pair[0]))
    tiles = page.evaluate("() => [...document.querySelectorAll('.tiles dd')].map((e) => e.textContent)")
    assert tiles == ["30", "3", "90.9%", "6", "10.0 s", "24.0", "$0.30", "$0.010"]
    scores = tables(page, "CLIP similarity, 100 × cosine")
    assert [row[3] for row in scores] == ["17.25 ± 4.40", "34.50 ± 8.80"]  # 0.5 x and 1 x 20..49: std 8.80
    sheets = page.evaluate("() => [...document.querySelectorAll('.sheet-row b')].map((e) => Number(e.textContent))")
    assert sheets == [49, 48, 47, 46, 45, 44, 37, 36, 35, 34, 33, 32, 25, 24, 23, 22, 21, 20]
    page.locator(".sheet-row").last.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('.sheet-row img')].at(-1).naturalWidth === 16")
    assert tables(page, "Dead letters") == [
        ["video", "ValueError", "my_stages/hull.py:41", HOSTILE, "2"],
        ["prompts", "ValueError", "", HOSTILE, "1"],
    ]
    moving, still = tables(page, "Prompts with verbs of motion, and without")
    assert moving[:4] == ["with a verb of motion", "6", "6", "100.0%"]
    assert still[:3] == ["without", "26", "2"]
    words = page.evaluate("() => [...document.querySelectorAll('td:first-child')].map((e) => e.textContent)")
    assert {"running", "horse"} <= set(words)
    assert "box" not in words
    assert page.problems == []


def test_nothing_hostile_runs(browser: Any, pair: tuple[Path, Path]) -> None:
    page = open_page(browser, page_of(pair[0]))
    assert page.title() == "Report: mine & <b>"
    page.fill("#query", "onerror")
    page.wait_for_selector("#found:text-is('1 to 1 of 1')")
    assert cards(page) == [HOSTILE]
    page.click("#cards button")
    assert page.text_content("#asset-prompt") == HOSTILE
    page.keyboard.press("Escape")
    page.select_option("#show", "failed")
    page.fill("#query", "")
    page.wait_for_selector("#found:text-is('1 to 3 of 3')")
    assert cards(page) == [HOSTILE] * 3
    assert page.title() == "Report: mine & <b>"
    assert page.evaluate("() => document.querySelectorAll('img[src=x], #cards img').length") == 0
    sources = page.evaluate("() => [...document.querySelectorAll('[src],[href]')].map((e) => e.src || e.href)")
    assert all(source.startswith(("file:", "data:,")) for source in sources)


def test_comparison(browser: Any, pair: tuple[Path, Path]) -> None:
    page = open_page(browser, page_of(pair[0]))
    rows = tables(page, "mine & <b> minus other, prompt by prompt")
    assert [row[1] for row in rows] == ["30", "30"]
    assert rows[1][4] == f"{(29 * 2 - 20) / 30:+.2f}"
    assert "mine & <b> is better in 29 of 30 assets of both." in page.text_content("#comparison")
    losses = page.locator(".pair").last
    assert HOSTILE in losses.text_content()
    losses.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('.pair img')].at(-1).naturalWidth === 16")


def test_runs_judged_otherwise_are_not_compared(browser: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    config = FactoryConfig()
    config.clip.model = "ViT-B-32-quickgelu"
    other = write_run(tmp_path / "other", [1.0, 2.0], config)
    assert report.main(["--run", str(other), "--against", str(pair[1]), "--label", "new"]) == 0
    page = open_page(browser, page_of(other))
    assert "clip.model: ViT-B-32-quickgelu and pocket" in page.text_content("#comparison .note")
    assert tables(page, "new minus other, prompt by prompt") == []


def test_an_asset_by_keyboard_and_its_viewer(browser: Any, pair: tuple[Path, Path]) -> None:
    page = open_page(browser, page_of(pair[0]))
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.id") == "query"
    page.focus("#cards button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#asset[open]")
    assert page.evaluate("() => document.activeElement.id") == "asset-prompt"
    page.wait_for_function("() => document.querySelectorAll('#asset video')[1].videoWidth === 32")
    page.click("#orbit")
    page.frame_locator("#asset-orbit iframe").locator("#there").wait_for()
    page.click("#asset-prompt")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#asset-prompt:text-is('a box 28')")
    assert "im3d export" in page.text_content("#asset-orbit")
    facts = dict(zip(*(page.locator(f"#asset-facts {tag}").all_text_contents() for tag in ("dt", "dd"))))
    assert facts["re-renders to prompt, CLIP small"] == "48.00"
    assert facts["seed"] == "28"
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('#asset video').length === 0")


def test_page_on_a_phone(browser: Any, pair: tuple[Path, Path]) -> None:
    shape = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    page = open_page(browser, page_of(pair[0]), **shape)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    page.locator("#cards button").first.tap()
    page.wait_for_selector("#asset[open]")
    assert page.evaluate("() => document.getElementById('asset').getBoundingClientRect().width") <= 360
    heights = page.evaluate("() => [...document.querySelectorAll('button,input,select')].map((e) => e.offsetHeight)")
    assert min(height for height in heights if height) >= 44


JUDGED = {
    "clip_text_renders_big": [30.0, 5.0, 20.0, 10.0],
    "clip_text_renders_big_views": [[1.0], [2.0], [3.0], [4.0]],
    "rank_text_renders_big": [0, 7, 4, None],
    "psnr_renders": [15.0, 25.0, 20.0, None],
    "chamfer": [0.4, 0.1, 0.2, None],
    "yield_probability": [0.9, 0.1, 0.2, 0.7],
}
"""Of four assets; two are better by PSNR and Chamfer than by CLIP."""


def write_evaluation(root: Path, name: str, values: dict[str, list], **statement: Any) -> None:
    """An evaluation of the assets a1, a2, ... as `im3d evaluate` leaves it, and one asset that it could not score."""
    store = LocalStore(str(root / "evaluations" / name))
    store.put("protocol.json", json.dumps(statement).encode())
    ids = [f"a{number}" for number in range(1, 1 + len(next(iter(values.values()))))]
    (root / "evaluations" / name / "scores").mkdir(exist_ok=True)
    pq.write_table(pa.table({"prompt_id": ids} | values), root / "evaluations" / name / "scores/part-000000.parquet")
    letter = {"prompt_id": "a0", "error_stage": "evaluate", "error_type": "ValueError", "error_message": HOSTILE}
    commit(store, dict.fromkeys(SCORE_DEAD_LETTERS.names) | letter, SCORE_DEAD_LETTERS)


def test_evaluations_have_tables_of_their_own_and_rank_by_what_is_better(browser: Any, tmp_path: Path) -> None:
    root, name = write_run(tmp_path / "run", [1.0, 2.0, 3.0, 4.0, 5.0], gate=False), "0123456789abcdef-11112222"
    views = {"num_views": 16, "size": 128, "background": 1.0}
    measures = {"fidelity": {}, "consistency": {}}
    write_evaluation(root, name, JUDGED, views=views, models={"big": {}}, measures=measures)
    older = {"clip_text_renders_big": [99.0]}
    write_evaluation(root, "0123456789abcdef-00000000", older, views=views)  # by fewer prompts: left out
    assert report.main(["--run", str(root), "--by", "chamfer@01234567"]) == 0
    page = open_page(browser, page_of(root))
    judged = ["01234567", "16 of 128 px, background 1", "big", "fidelity, consistency", "4", "1"]
    assert tables(page, "Evaluations by im3d evaluate") == [judged]
    failed = tables(page, "Assets that an evaluation could not score")
    assert failed == [["01234567", "ValueError", HOSTILE, "1"]]
    assert tables(page, "CLIP similarity, 100 × cosine")[2][2:4] == ["4", "16.25 ± 11.09"]
    ranks = tables(page, "How many other prompts fit better than the own")
    assert ranks == [["re-renders, CLIP big @01234567", "3", "33.3%", "66.7%", "100.0%", "4"]]
    psnr, chamfer = tables(page, "Fidelity: against the true object, on unseen views")
    assert psnr[:4] == ["PSNR, dB @01234567", "higher", "3", "20.00 ± 5.00"]
    assert chamfer[:4] == ["Chamfer distance, radii @01234567", "lower", "3", "0.2333 ± 0.1528"]
    sheets = page.evaluate("() => [...document.querySelectorAll('.sheet-row b')].map((e) => e.textContent)")
    assert sheets == ["0.1000", "0.2000", "0.4000"]
    assert cards(page)[:3] == ["a box 2", "a box 3", "a box 1"]
    assert page.evaluate("() => document.getElementById('order').value") == "up"
    page.select_option("#sort", label="PSNR, dB @01234567")
    page.select_option("#order", "down")
    page.wait_for_selector("#cards li:first-child :text-is('25.00 PSNR, dB @01234567')")
    page.locator(".sheet-row").last.click()
    page.wait_for_selector("#asset-prompt:text-is('a box 1')")
    tiles = dict(zip(*(page.locator(f".tiles {tag}").all_text_contents() for tag in ("dt", "dd"))))
    assert tiles["flagged turntables"] == "2"  # by the evaluation's gate where the line had none
    assert page.problems == []


def test_runs_compare_by_evaluations_and_less_may_be_better(browser: Any, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [1.0, 2.0, 3.0, 4.0, 5.0]) for name in ("new", "old")]
    worse = JUDGED | {"chamfer": [0.5, 0.3, 0.1, None]}
    write_evaluation(runs[0], "0123456789abcdef-11112222", JUDGED)
    write_evaluation(runs[1], "0123456789abcdef-33334444", worse)
    assert report.main(["--run", str(runs[0]), "--against", str(runs[1]), "--by", "chamfer@01234567"]) == 0
    page = open_page(browser, page_of(runs[0]))
    rows = {row[0]: row[1:] for row in tables(page, "new minus old, prompt by prompt")}
    assert not any("own prompt" in title or title.startswith("re-renders, CLIP") for title in rows)  # other pools
    assert rows["Chamfer distance, radii @01234567, lower is better"][3] == "-0.0667"
    assert "new is better in 2 of 3 assets of both." in page.text_content("#comparison")
    pairs = page.evaluate("() => [...document.querySelectorAll('.pair .number')].map((e) => e.textContent)")
    assert pairs == ["-0.2000", "-0.1000", "+0.1000"]


def test_a_folder_of_another_method_that_was_evaluated(browser: Any, tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    root.mkdir()
    assert report.main(["--run", str(root)]) == 2
    values = {"prompt": ["a cup", HOSTILE, "a box"], "clip_text_frames_big": [20.0, 40.0, None]}
    write_evaluation(root, "0123456789abcdef-11112222", values)
    (root / "a1.mp4").write_bytes(encode_mp4(np.full((4, 32, 32, 3), 90, np.uint8)))
    (root / "a2.webm").write_bytes(b"")
    (root / "a3.ply").write_bytes(b"")
    assert report.main(["--run", str(root)]) == 0
    page = open_page(browser, page_of(root))
    assert cards(page) == [HOSTILE, "a cup", "a box"]
    assert tables(page, "Dead letters") == [["evaluate", "ValueError", "", HOSTILE, "1"]]
    page.click("#cards li:nth-child(2) button")
    page.wait_for_function("() => document.querySelector('#asset video').videoWidth === 32")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#asset-prompt:text-is('a box')")
    assert page.locator("#asset-links a").all_text_contents() == ["a3.ply"]
    assert page.locator("#asset video").count() == 0


def test_a_run_of_dead_letters_alone(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    assert report.main(["--run", str(write_run(tmp_path / "run", []))]) == 0
    page.goto(page_of(tmp_path / "run").as_uri())
    page.wait_for_selector("#found:text-is('Nothing matches.')")
    page.select_option("#show", "failed")
    page.wait_for_selector("#found:text-is('1 to 3 of 3')")


def test_a_hundred_thousand_assets(browser: Any, tmp_path: Path) -> None:
    count = 100_000
    random = np.random.default_rng(0)
    numbers = np.arange(count)
    columns: dict[str, Any] = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
    columns["prompt_id"] = pa.array([f"p{k:06d}" for k in numbers])
    columns["prompt"] = pa.array([f"a {'red' if k % 3 else 'running'} thing number {k}" for k in numbers])
    paths = [f"files/p{k:06d}-0/asset.ply" for k in numbers]
    columns["ply"] = pa.array([{"path": path} for path in paths], SCHEMA.field("ply").type)
    columns[TEXT] = pa.array(random.normal(30, 5, count))
    columns["num_gaussians"] = pa.array(random.permutation(count).astype(np.int32))
    columns["seconds_reconstruct"] = pa.array(random.gamma(9, 5, count))
    (tmp_path / "assets").mkdir()
    pq.write_table(pa.table(columns, schema=SCHEMA), tmp_path / "assets" / "part-000000.parquet")
    assert report.main(["--run", str(tmp_path)]) == 0
    assert page_of(tmp_path).stat().st_size < 200_000
    page = open_page(browser, page_of(tmp_path))
    assert page.text_content("#found") == "1 to 24 of 100,000"
    assert page.evaluate("() => document.querySelectorAll('*').length") < 1200
    assert page.evaluate("() => document.querySelectorAll('script').length") == 3  # one shard of fifty
    page.click("#last")
    page.wait_for_selector("#found:text-is('99,985 to 100,000 of 100,000')")
    page.fill("#query", "running p0999")
    page.wait_for_selector("#found:text-is('1 to 24 of 34')")
    page.click("#next")
    page.wait_for_selector("#found:text-is('25 to 34 of 34')")
    page.fill("#query", "")
    page.select_option("#sort", label="Gaussians")
    page.wait_for_selector("#cards li:first-child :text-is('99,999 Gaussians')")
    page.select_option("#order", "up")
    page.wait_for_selector("#cards li:first-child :text-is('0 Gaussians')")
    assert page.evaluate("() => document.querySelectorAll('*').length") < 1200


def test_the_run_is_only_read_and_its_page_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [1.0, 2.0, 3.0])
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.chdir(run)
    for place in (f"{run}/", "."):
        assert report.main(["--run", place]) == 0
        assert f"{run}-report/report.html" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert '"base":"../run/"' in (tmp_path / "run-report/report/contents.js").read_text()
    assert report.main(["--run", "s3://bucket"]) == 2
    assert "s3://bucket is a whole bucket" in capsys.readouterr().err
    assert report.main(["--run", str(run), "--out", str(run)]) == 0
    assert (run / "report.html").exists()


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert report.main(["--run", str(tmp_path)]) == 2
    assert "holds neither assets nor dead letters" in capsys.readouterr().err
    assert report.main(["--run", str(pair[0]), "--by", "beauty"]) == 2
    assert f"'beauty' not found. Available: {IMAGE}, {TEXT}" in capsys.readouterr().err
