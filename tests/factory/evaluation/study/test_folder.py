"""A study's folder from other people's videos: playable, blind, whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from eval.assignment import StudyConfig, read_assignment
from factory.evaluation.study.folder import keep_answers, read_answers, read_study, write_study
from factory.evaluation.study.media import Media, Method, method_of_run, shuffle_tiles
from factory.storage.interface import StorageConfig
from factory.storage.local import LocalStore
from factory.storage.read_only import open_read_only
from recon.video_io import decode_mp4, encode_mp4, frame_rate, plays_in_browsers

HOSTILE = '</script><img src=x onerror="alert(1)">'


def frames(seed: int, size: int = 48) -> np.ndarray:
    return np.repeat(
        np.random.default_rng(seed).integers(0, 256, (6, size // 16, size // 16, 3), np.uint8), 16, 1
    ).repeat(16, 2)


def mpeg4(pixels: np.ndarray) -> bytes:
    """As OpenCV's `mp4v` writes it: no browser plays it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[2], pixels.shape[1], "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def folders(root: Path, num_prompts: int = 3) -> list[Method]:
    image = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(image, "PNG")
    (root / "image.png").write_bytes(image.getvalue())
    rows = [{"prompt_id": f"p{k}", "prompt": f"{HOSTILE} {k}", "image": "image.png"} for k in range(num_prompts)]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for index, name in enumerate(("secret-ours", "secret-theirs")):
        (root / name).mkdir()
        for k in range(num_prompts):
            (root / name / f"p{k}.mp4").write_bytes((encode_mp4, mpeg4)[index](frames(10 * index + k)))
    return [
        method_of_run(n, str(root / n), StorageConfig(), str(root / "prompts.jsonl"))
        for n in ("secret-ours", "secret-theirs")
    ]


def test_folder_is_whole_and_the_page_blind(tmp_path: Path) -> None:
    methods = folders(tmp_path)
    record = write_study(methods, LocalStore(str(tmp_path / "study")), StudyConfig(load=4))
    assert (record["questions"], record["annotators"], record["videos_reencoded"]) == (6, 8, 3)
    assert record["problems"] == []
    study, tasks = read_study(open_read_only(str(tmp_path / "study")))
    page = tmp_path / "study" / "page"
    assert {path.stem for path in (page / "tasks").iterdir()} == {task.annotator for task in tasks}
    for path in (page / "tasks").iterdir():
        text = path.read_text()
        shown = json.loads(text.removeprefix("globalThis.STUDY = ").removesuffix(";\n"))
        own = [task for task in tasks if task.annotator == path.stem]
        assert shown["study"] == study
        assert [screen["task"] for screen in shown["tasks"]] == [task.task_id for task in own]
        for screen in shown["tasks"]:
            assert all((page / screen[part]).is_file() for part in ("left", "right", "image"))
            assert screen["left"] != screen["right"]
            assert set(screen) == {"task", "criterion", "prompt", "image", "left", "right"}
    published = [path for path in page.rglob("*") if path.is_file()]
    assert not [path for path in published if b"secret" in path.read_bytes() or "secret" in path.name]
    assert all(plays_in_browsers(path.read_bytes()) for path in page.glob("media/*.mp4"))
    assert (tmp_path / "study" / "links.csv").read_text().splitlines()[
        1
    ] == f"{tasks[0].annotator},index.html?a={tasks[0].annotator}"
    with pytest.raises(ValueError, match="already holds a study"):
        write_study(methods, LocalStore(str(tmp_path / "study")), StudyConfig())


def test_unreadable_video_and_missing_one_are_left_out_by_name(tmp_path: Path) -> None:
    methods = folders(tmp_path)
    (tmp_path / "secret-theirs" / "p1.mp4").write_bytes(b"no video")
    del methods[1].turntables["p2"]
    record = write_study(methods, LocalStore(str(tmp_path / "study")), StudyConfig())
    assert (record["competitors"], record["pairs_left_out"]) == ({"secret-theirs": 1}, 2)
    assert [problem.split(":")[0] for problem in record["problems"]] == ["secret-theirs, p1"]
    _, tasks = read_study(open_read_only(str(tmp_path / "study")))
    assert {task.prompt_id for task in tasks} == {"p0"}


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    ours, theirs = folders(tmp_path)
    out = LocalStore(str(tmp_path / "study"))
    with pytest.raises(ValueError, match="at least 2 runs"):
        write_study([ours], out, StudyConfig())
    with pytest.raises(ValueError, match="give different --labels"):
        write_study(
            [ours, Method(label=ours.label, store=theirs.store, turntables=theirs.turntables)], out, StudyConfig()
        )
    with pytest.raises(ValueError, match="share no prompt"):
        write_study([ours, Method(label="x", store=theirs.store, turntables={})], out, StudyConfig())
    with pytest.raises(ValueError, match="give --prompts TABLE"):
        method_of_run("x", str(tmp_path / "secret-ours"), StorageConfig())
    with pytest.raises(ValueError, match="holds no study"):
        read_study(open_read_only(str(tmp_path / "nowhere")))


def test_broken_version_keeps_colours_and_breaks_the_picture() -> None:
    whole = frames(3, 50)
    broken = shuffle_tiles(whole, seed=1)
    assert broken.shape == (6, 48, 48, 3)
    assert np.array_equal(np.sort(broken.reshape(6, -1)), np.sort(whole[:, :48, :48].reshape(6, -1)))
    assert np.abs(broken.astype(int) - whole[:, :48, :48]).mean() > 20
    with pytest.raises(ValueError, match="at least 16 pixels"):
        shuffle_tiles(whole[:, :8], seed=1)


def test_reencoded_video_shows_the_same(tmp_path: Path) -> None:
    pixels = frames(1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "p.mp4").write_bytes(mpeg4(pixels))
    (tmp_path / "t.jsonl").write_text('{"prompt_id": "p", "prompt": "x"}')
    method = method_of_run("a", str(tmp_path / "a"), StorageConfig(), str(tmp_path / "t.jsonl"))
    name = Media(out=LocalStore(str(tmp_path))).video(method, "p")
    data = (tmp_path / "page" / str(name)).read_bytes()
    assert frame_rate(data) == 6
    decoded = decode_mp4(data).astype(int)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded - pixels).mean() < 12


def test_a_reference_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for method in ("ours", "theirs"):
        (tmp_path / method).mkdir()
        for name in ("a", "b"):
            (tmp_path / method / f"{name}.mp4").write_bytes(encode_mp4(frames(1)))
    table = [{"prompt_id": "a", "prompt": "x"}, {"prompt_id": "b", "prompt": "y", "image": "/gone.png"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, table)))
    methods = [
        method_of_run(name, str(tmp_path / name), StorageConfig(), str(tmp_path / "t.jsonl"))
        for name in ("ours", "theirs")
    ]
    record = write_study(methods, LocalStore(str(tmp_path / "study")), StudyConfig(per_question=1))
    assert (record["competitors"], record["without_image"]) == ({"theirs": 1}, 1)
    assert [problem[:8] for problem in record["problems"]] == ["ours, b:", "theirs, "]
    assert "'/gone.png' lies outside" in record["problems"][0]


def test_answers_are_kept_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert keep_answers(store, "a1", b"x")
    assert keep_answers(store, "a1", b"x")
    assert not keep_answers(store, "a1", b"y")
    assert read_answers([str(tmp_path / "answers")], StorageConfig()) == {f"{tmp_path}/answers/a1.csv": "x"}
    assert read_answers([str(tmp_path / "answers" / "a1.csv")], StorageConfig()) == {f"{tmp_path}/answers/a1.csv": "x"}
    with pytest.raises(ValueError, match="no such file"):
        read_answers([str(tmp_path / "b.csv")], StorageConfig())
    with pytest.raises(ValueError, match="is no folder"):
        read_answers([str(tmp_path / "b")], StorageConfig())


def test_assignment_reads_back(tmp_path: Path) -> None:
    write_study(folders(tmp_path), LocalStore(str(tmp_path / "s")), StudyConfig(per_question=1))
    assert (
        read_assignment((tmp_path / "s" / "assignment.csv").read_text())
        == read_study(open_read_only(str(tmp_path / "s")))[1]
    )
