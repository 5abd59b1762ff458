"""The command line: quick, light, precedence of settings, errors in one sentence."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from factory.storage.interface import StorageError
from jobs import generate, render
from jobs.cli import JOBS, main
from jobs.errors import DEBUG, guarded, sentence
from jobs.help import SHOWN, settings_of
from jobs.settings import parse
from recon.ply import read_ply
from recon.user_error import UserError

ROOT = Path(__file__).resolve().parents[2]


HEAVY = ("torch", "ray", "numba", "diffusers", "pyarrow", "numpy", "scipy", "PIL")
MOST_SHOWN = 60
ALWAYS = {
    "generate": ["--prompts", "--out", "--fit.iterations", "--refine.rounds-at", "--line.pools", "--storage.endpoint"],
    "render": ["--assets", "--size", "--storage.endpoint", "--cost.gpu-hour-price"],
    "ablate": ["--assets", "--variants", "--fit.iterations", "--storage.endpoint"],
    "report": ["--run", "--against", "--storage.endpoint"],
}


def help_of(*words: str) -> tuple[str, list[str]]:
    """What `im3d` prints with these words, and which heavy packages it imported for that."""
    code = (
        "import sys; from jobs.cli import main\n"
        f"try: main({list(words)!r})\nexcept SystemExit: pass\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    *text, imported = result.stdout.splitlines() or [""]
    return "\n".join(text), imported.split()


def flags_in(text: str) -> list[str]:
    """The settings that a help page lists."""
    return re.findall(r"^│ (--[\w.-]+)", text, re.MULTILINE)


ACTIONS = {"study": "make", "weights": "pull"}


@pytest.mark.parametrize("words", [[job, ACTIONS[job]] if job in ACTIONS else [job] for job in JOBS], ids=" ".join)
def test_help_shows_what_users_set_and_imports_nothing_heavy(words: list[str]) -> None:
    text, imported = help_of(*words, "--help")
    assert imported == []
    assert 3 <= len(flags_in(text)) <= MOST_SHOWN
    assert set(ALWAYS.get(words[0], ())) <= set(flags_in(text))
    assert "--help-all" in text
    assert "--debug" in text


def test_help_all_shows_the_rest_and_every_flag_is_parsed() -> None:
    text, _ = help_of("generate", "--help-all")
    assert {"--fit.rates.means", "--fit.densify.noise", "--storage.part-mb"} <= set(flags_in(text))
    assert len(flags_in(text)) > 2 * len(flags_in(help_of("generate", "--help")[0])) > 0
    job = parse(generate.Generate, ["--prompts", "p", "--out", "o", "--fit.rates.means", "0.5"])
    assert job.settings.fit.rates.means == 0.5


def test_what_help_shows_are_settings(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {kind.__name__: kind for kind in settings_of(generate.Generate)}
    kinds |= {kind.__name__: kind for kind in settings_of(render.Render)}
    assert SHOWN.keys() <= kinds.keys()
    for name, shown in SHOWN.items():
        assert set(shown) <= {field.name for field in dataclasses.fields(kinds[name])}


def fail_in(raising: BaseException) -> Any:
    def run() -> int:
        raise raising

    return run


def test_a_mistake_is_a_sentence_and_a_bug_has_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    (tmp_path / "x.ply").write_bytes(b"no model")
    assert guarded(fail_in(UserError("size is 0; it must be at least 1"))) == 2
    assert capsys.readouterr().err == "error: size is 0; it must be at least 1\n"
    assert guarded(lambda: len(read_ply(tmp_path / "x.ply"))) == 3
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert re.fullmatch(r"error: ValueError at recon/ply_header\.py:\d+: .*x\.ply is no PLY file.*", last)


BROKEN = """
import numpy as np
import torch
from factory.line.stage import Stage
from factory.stages.columns import ELEVATION, GAUSSIANS, IMAGE
from recon.user_error import UserError

class Broken(Stage):
    name, writes = "broken", (IMAGE, GAUSSIANS, ELEVATION)
    def load(self):
        {cause}
"""


@pytest.mark.parametrize(
    ("cause", "code", "kind"),
    [
        ("raise UserError('broken.model is none; give a folder')", 2, ""),
        ("np.zeros(3).reshape(2)", 3, "ValueError"),
        ("torch.zeros(2) @ torch.zeros(3)", 3, "RuntimeError"),
        ("open('/none/there')", 3, "FileNotFoundError"),
    ],
)
def test_only_a_user_error_is_told_without_its_traceback(
    cause: str,
    code: int,
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"broken_{abs(hash(cause))}"
    (tmp_path / f"{module}.py").write_text(BROKEN.format(cause=cause))
    (tmp_path / "prompts.txt").write_text("a cup\n")
    flags = ["--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"), "--runner", "inprocess"]
    assert main(["generate", *flags, "--chain", f"{module}:Broken,commit"]) == code
    lines = capsys.readouterr().err.splitlines()
    if not kind:
        assert lines == ["error: broken.model is none; give a folder"]
    else:
        assert lines[0] == "Traceback (most recent call last):"
        assert any(f"{module}.py" in line for line in lines)
        assert re.match(rf"error: {kind} at .*{module}\.py:11: ", lines[-1])


@pytest.mark.parametrize("kind", [UserError, StorageError, ValueError])
def test_mistakes_of_a_worker_are_reported_as_those_of_the_driver(kind: type[Exception]) -> None:
    from ray.exceptions import ActorDiedError, RayTaskError

    name = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
    trace = f'ray::Broken()\n  File "x.py", line 1, in load\n{name}: no folder'
    task = RayTaskError("Broken", trace, kind("no folder"))
    expected = None if kind is ValueError else "no folder"
    assert [sentence(error) for error in (task, task.as_instanceof_cause(), ActorDiedError(task))] == [expected] * 3


@pytest.mark.parametrize("asked", ["flag", "variable"])
def test_debug_prints_the_traceback_without_secrets(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter22hunter22")
    monkeypatch.setenv(DEBUG, "1" if asked == "variable" else "")
    monkeypatch.setattr("factory.prompts.prompt_table.read_prompts", fail_in_prompts)
    flags = ["generate", "--prompts", "p", "--out", str(tmp_path / "out"), *["--debug"] * (asked == "flag")]
    assert main(flags) == 3
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert "in fail_in_prompts" in text
    assert "hunter22" not in text


def fail_in_prompts(*_: Any) -> Any:
    raise ZeroDivisionError("hunter22hunter22")


def test_flags_come_after_yaml_after_preset(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("fit: {iterations: 600, num_points: 700}\n")
    flags = ["--preset", "paper", "--prompts", "p", "--out", "o", "--config", str(tmp_path / "c.yaml")]
    job = parse(generate.Generate, [*flags, "--fit.num-points", "800"])
    assert (job.settings.fit.iterations, job.settings.fit.num_points) == (600, 800)
    assert job.settings.image.model.startswith("stabilityai/")
    assert parse(generate.Generate, ["--prompts", "p", "--out", "o"]).settings.image.model == "pocket"


def test_runner_is_one_flag_of_every_line(tmp_path: Path) -> None:
    for words in (["--runner", "inprocess"], ["--runner=inprocess"], ["--line.runner", "inprocess"]):
        assert parse(generate.Generate, ["--prompts", "p", "--out", "o", *words]).settings.line.runner == "inprocess"


def test_unknown_flag_suggests_the_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(generate.Generate, ["--prompts", "p", "--out", "o", "--fit.iteration", "3"])
    assert stopped.value.code == 2
    assert "--fit.iterations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts", "none.jsonl"], "none.jsonl: no such file"),
        (["--prompts", "{folder}/bad.csv"], "no column 'prompt'. Available: text"),
        (["--prompts", "{folder}/good.txt", "--limit", "0"], "limit is 0; it must be at least 1"),
        (["--prompts", "{folder}/good.txt", "--config", "{folder}/c.yaml"], "did you mean fit.iterations?"),
        (["--prompts", "{folder}/good.txt", "--preset", "paper"], "no CUDA GPU is visible"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    (tmp_path / "bad.csv").write_text("text\na cup\n")
    (tmp_path / "good.txt").write_text("a cup\n")
    (tmp_path / "c.yaml").write_text("fit: {iteration: 3}\n")
    arguments = [flag.format(folder=tmp_path) for flag in flags]
    assert main(["generate", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_unknown_job_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generat"]) == 2
    assert f"Available: {', '.join(JOBS)}" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "prompts in, 3D assets out" in capsys.readouterr().out
