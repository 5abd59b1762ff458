"""The study from end to end in a real browser: made, answered by click and by key, collected, scored."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.assignment import Task
from eval.collector import Collector
from factory.evaluation.study.folder import keep_answers, read_study
from factory.ledger.lease import Lease
from factory.storage.local import LocalStore
from factory.storage.read_only import open_read_only
from jobs import study
from recon.video_io import encode_mp4

HOSTILE = '<img src=x onerror="document.title=1"> & a cup'
WAIT = 60_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods, one annotator a question, 12 questions and 8 checks."""
    root = tmp_path_factory.mktemp("study")
    Image.new("RGB", (32, 32), "red").save(root / "image.png")
    rows = [{"prompt_id": f"p{k}", "prompt": f"{HOSTILE} {k}", "image": "image.png"} for k in range(6)]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for method, level in (("ours", 40), ("theirs", 160)):
        (root / method).mkdir()
        for k in range(6):
            frames = np.full((8, 64, 64, 3), 255, np.uint8)
            for t in range(8):
                frames[t, 16:48, 8 + 4 * t : 24 + 4 * t] = (level, 20 * k, 30 * t)
            (root / method / f"p{k}.mp4").write_bytes(encode_mp4(frames))
    flags = ["--per-question", "1", "--num-broken", "4", "--num-repeats", "4", "--prompts", str(root / "prompts.jsonl")]
    runs = ["--runs", str(root / "ours"), str(root / "theirs"), "--labels", "we", "theirs"]
    assert study.main(["make", *runs, "--out", str(root / "study"), *flags]) == 0
    return root / "study"


def open_page(browser: Any, address: str, **context: Any) -> Any:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(WAIT)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.goto(address)
    return page


def answer(page: Any, tasks: list[Task], press: Callable[[Any, str], None], start: int = 0) -> None:
    """Answer every screen from the one at `start`: ours wins, and what is broken never does."""
    for number, task in enumerate(tasks[start:], start + 1):
        page.wait_for_selector(f"#place:text-is('Question {number} of {len(tasks)}')")
        page.wait_for_selector("#left:enabled")
        page.wait_for_timeout(350)
        press(page, "left" if task.left == "we" else "right")
    page.wait_for_selector("#end:not([hidden])")


def address(folder: Path, tasks: list[Task]) -> str:
    return f"file://{folder}/page/index.html?a={tasks[0].annotator}"


def downloaded(page: Any) -> str:
    with page.expect_download() as download:
        page.click("#save")
    return Path(download.value.path()).read_text()


def test_twenty_answers_by_click_and_by_key_are_exported_and_scored(browser: Any, folder: Path, tmp_path: Path) -> None:
    _, tasks = read_study(open_read_only(str(folder)))
    assert len(tasks) == 20

    def press(page: Any, side: str) -> None:
        number = int(page.text_content("#place").split()[1])
        if number % 2:
            page.click(f"#{side}")
        else:
            page.keyboard.press("ArrowLeft" if side == "left" else "ArrowRight")

    page = open_page(browser, address(folder, tasks))
    page.click("#begin")
    page.wait_for_selector("#left:enabled")
    widths = page.evaluate("['left','right'].map((s) => document.getElementById(`${s}-video`).videoWidth)")
    assert widths == [64, 64]
    page.wait_for_function("() => document.getElementById('left-video').currentTime > 0.2")
    answer(page, tasks, press)
    text = downloaded(page)
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["task"] for row in rows] == [task.task_id for task in tasks]
    assert [row["choice"] for row in rows] == ["left" if task.left == "we" else "right" for task in tasks]
    assert page.problems == []
    assert page.title() == "Which 3D object is better?"
    (tmp_path / "answers.csv").write_text(text)
    assert study.main(["score", "--study", str(folder), "--answers", str(tmp_path / "answers.csv")]) == 0
    scores = json.loads((folder / "results" / "scores.json").read_text())
    assert [(rate["wins"], rate["questions"]) for rate in scores["rates"]] == [(6, 6), (6, 6)]
    assert [(one["broken_passed"], one["repeats_agreed"]) for one in scores["annotators"]] == [(4, 4)]


def test_progress_survives_a_reload_and_back_changes_an_answer(browser: Any, folder: Path) -> None:
    _, tasks = read_study(open_read_only(str(folder)))
    page = open_page(browser, address(folder, tasks))
    page.click("#begin")
    for _ in range(3):
        page.wait_for_selector("#left:enabled")
        page.wait_for_timeout(350)
        page.keyboard.press("ArrowLeft")
    page.reload()
    page.wait_for_selector("#start:not([hidden])")
    assert page.text_content("#count") == "17 of 20 questions still"
    page.click("#begin")
    page.wait_for_selector("#place:text-is('Question 4 of 20')")
    page.keyboard.press("b")
    page.wait_for_selector("#place:text-is('Question 3 of 20')")
    assert page.get_attribute("#left", "aria-pressed") == "true"
    page.wait_for_selector("#right:enabled")
    page.wait_for_timeout(350)
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#place:text-is('Question 4 of 20')")
    stored = json.loads(page.evaluate("localStorage[Object.keys(localStorage)[0]]"))
    assert [stored[task.task_id]["choice"] for task in tasks[:3]] == ["left", "left", "right"]


def test_page_on_a_phone_with_reduced_motion(browser: Any, folder: Path) -> None:
    _, tasks = read_study(open_read_only(str(folder)))
    shape = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    page = open_page(browser, address(folder, tasks), reduced_motion="reduce", **shape)
    page.tap("#begin")
    page.wait_for_selector("#left:enabled")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    bottom = page.evaluate("document.getElementById('play').getBoundingClientRect().bottom")
    assert bottom <= 740
    sizes = page.evaluate("[...document.querySelectorAll('#question button')].map((b) => b.offsetHeight)")
    assert min(size for size in sizes if size) >= 44
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")
    page.tap("#play")
    page.wait_for_function("() => document.getElementById('right-video').currentTime > 0")


def test_focus_goes_in_reading_order_and_is_seen(browser: Any, folder: Path) -> None:
    _, tasks = read_study(open_read_only(str(folder)))
    page = open_page(browser, address(folder, tasks))
    page.click("#begin")
    page.wait_for_selector("#left:enabled")
    assert page.evaluate("document.activeElement.id") == "ask"
    order = []
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["left", "right", "play"]  # back is disabled on the first screen
    named = page.evaluate(
        "[...document.querySelectorAll('img,video,input,progress')]"
        ".every((e) => e.alt || e.ariaLabel || e.labels?.length || e.getAttribute('aria-labelledby'))"
    )
    assert named


def test_unknown_code_and_video_that_does_not_play(browser: Any, folder: Path, tmp_path: Path) -> None:
    _, tasks = read_study(open_read_only(str(folder)))
    shutil.copytree(folder, tmp_path / "study")
    for video in (tmp_path / "study" / "page" / "media").glob("*.mp4"):
        video.write_bytes(b"no video")
    page = open_page(browser, f"file://{tmp_path}/study/page/index.html?a=0000000000")
    page.wait_for_selector("#problem:not([hidden])")
    page.goto(f"file://{tmp_path}/study/page/index.html")
    page.fill("#code-field", tasks[0].annotator)
    page.keyboard.press("Enter")
    page.wait_for_selector("#start:not([hidden])")
    page.click("#begin")
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.is_disabled("#left")
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#place") == "Question 1 of 20"
    page.click("#unplayable")
    page.wait_for_selector("#place:text-is('Question 2 of 20')")


def test_answers_reach_the_collecting_server(browser: Any, folder: Path) -> None:
    name, tasks = read_study(open_read_only(str(folder)))
    store = LocalStore(str(folder))
    known = {task.task_id: task for task in tasks}
    server = Collector(("127.0.0.1", 0), folder / "page", name, known, lambda who, data: keep_answers(store, who, data))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = open_page(browser, f"{server.url}?a={tasks[0].annotator}")
        given = {"seconds": "1.0", "answered": "2026-01-01T00:00:00Z"}
        before = {t.task_id: given | {"choice": "left" if t.left == "we" else "right"} for t in tasks[:-2]}
        key = f"im3d-study:{name}:{tasks[0].annotator}"
        page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, json.dumps(before)])
        page.reload()
        page.wait_for_selector("#count:text-is('2 of 20 questions still')")
        page.click("#begin")
        answer(page, tasks, lambda page, side: page.keyboard.press(f"Arrow{side.title()}"), start=len(before))
        page.wait_for_selector("#sent:text-is('Your answers have arrived. You can close this page.')")
        assert page.is_disabled("#send")
        kept = (folder / "answers" / f"{tasks[0].annotator}.csv").read_text()
        assert kept == downloaded(page)
        assert page.problems == []
    finally:
        server.shutdown()
        server.server_close()
    assert study.main(["score", "--study", str(folder)]) == 0


def test_mistakes_are_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["score", "--study", str(folder.parent)]) == 2
    assert "error: " in capsys.readouterr().err
    assert study.main(["make", "--runs", "a", "b", "--labels", "x", "--out", "c"]) == 2
    assert "1 labels for 2 runs" in capsys.readouterr().err
    assert study.main(["score", "--study", str(folder), "--answers", str(folder / "nowhere")]) == 2
    assert "no answers yet" in capsys.readouterr().err
    assert study.main(["serve", "--study", "s3://bucket/study"]) == 2
    assert "s3://bucket/study is no folder on local disk" in capsys.readouterr().err


def test_two_jobs_do_not_write_one_study(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = folder.parent, str(tmp_path / "study")
    runs = ["--runs", str(root / "ours"), str(root / "theirs"), "--prompts", str(root / "prompts.jsonl"), "--labels"]
    with Lease(LocalStore(out)):
        assert study.main(["make", *runs, "we", "they", "--out", out]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "study" / "study.json").exists()
