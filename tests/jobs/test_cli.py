"""The command line: quick, light, precedence of settings, errors in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import generate
from jobs.cli import JOBS, main
from jobs.settings import parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("job", ["generate", "render", "ablate", "report"])
def test_help_lists_flags_and_imports_nothing_heavy(job: str) -> None:
    code = (
        "import sys; from jobs.cli import main\n"
        f"try: main([{job!r}, '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'numba', 'diffusers', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    flags = {
        "generate": ["--prompts", "--out", "--fit.iterations", "--refine.rounds-at"],
        "render": ["--assets", "--size"],
        "ablate": ["--assets", "--variants", "--fit.iterations", "--nerf.iterations"],
        "report": ["--run", "--against"],
    }
    assert all(flag in result.stdout for flag in flags[job])


def test_flags_come_after_yaml_after_preset(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("fit: {iterations: 600, num_points: 700}\n")
    flags = ["--preset", "paper", "--prompts", "p", "--out", "o", "--config", str(tmp_path / "c.yaml")]
    job = parse(generate.Generate, [*flags, "--fit.num-points", "800"])
    assert (job.settings.fit.iterations, job.settings.fit.num_points) == (600, 800)
    assert job.settings.image.model.startswith("stabilityai/")
    assert parse(generate.Generate, ["--prompts", "p", "--out", "o"]).settings.image.model == "pocket"


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
