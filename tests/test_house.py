"""The house itself: where packages come from, and which way they may import."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["factory", "jobs", "model", "recon", "eval"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_package_resolves_inside_the_checkout(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"


def test_import_contracts_are_kept() -> None:
    result = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_configs_import_without_torch() -> None:
    code = "import sys, model.config, eval.config; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    assert run(sys.executable, "-c", code).stdout.split() == ["False", "False"]


def test_constraints_are_exact_and_name_no_place() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "@" not in line and "/" not in line and "+" not in line for line in lines)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(lines)


def test_no_pickled_weights_are_tracked() -> None:
    tracked = run("git", "ls-files").stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    assert not [name for name in tracked if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
