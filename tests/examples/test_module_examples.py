"""The examples on top of modules, run as they stand; only lengths of fits are cut."""

from __future__ import annotations

import ast
import textwrap
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from factory.ledger.schemas import LINE, empty_row, pack, unpack
from factory.line.stage import Stage
from factory.stages.columns import IMAGE
from model.sampling import dpm_solver, guided, restart, sample, seeded_noise
from recon.cameras import turntable
from recon.config import DensifyConfig, FitConfig, OrbitConfig, RefineConfig
from recon.fit import fit
from recon.loss_weights import LossConfig
from recon.masks import masks_of
from recon.ply import read_ply, write_ply
from recon.refine import LoopConfig, Turntable, reconstruct

ROOT = Path(__file__).parents[2]
SHORT = FitConfig(iterations=4, num_points=50, loss=LossConfig(lpips=0, ms_ssim=0), densify=DensifyConfig(every=2))


def run_example(module: str, **names: Any) -> dict[str, Any]:
    """Run the code under `Example:` in a module's docstring with these names; returns all names after it."""
    text = ast.get_docstring(ast.parse((ROOT / module).read_text())) or ""
    lines = text.partition("Example:\n")[2].splitlines()
    code = list(takewhile(lambda line: not line or line.startswith("    "), lines))
    assert code, f"{module} has no example"
    exec(textwrap.dedent("\n".join(code)), names)
    return names


def discs(side: int) -> np.ndarray:
    """A red ball from 16 sides over white, uint8 [16,side,side,4]."""
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(x - side / 2, y - side / 2) < side / 4
    frame = np.full((side, side, 4), 255, np.uint8)
    frame[inside, :3], frame[..., 3] = (200, 30, 30), 255 * inside
    return np.repeat(frame[None], 16, 0)


def test_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames, short = discs(128), lambda iterations: SHORT
    names = run_example(
        "recon/fit.py", turntable=turntable, OrbitConfig=OrbitConfig, fit=fit, FitConfig=short, write_ply=write_ply,
        frames=frames, masks=masks_of(frames, None),
    )  # fmt: skip
    assert len(read_ply("asset.ply")) == len(names["result"].gaussians) > 0


def test_reconstruct() -> None:
    class Unchanged:
        calls = 0

        def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
            self.calls += prompt == "a red chair"
            return frames

    refiner, frames = Unchanged(), discs(32)
    names = run_example(
        "recon/refine.py", Turntable=Turntable, reconstruct=reconstruct, frames=frames, image=frames[0],
        LoopConfig=partial(LoopConfig, fit=SHORT, refine=RefineConfig(rounds_at=(2,))),
        video_model=refiner, masker=None,
    )  # fmt: skip
    assert refiner.calls == 1
    assert [record["stage"] for record in names["records"]] == ["fit", "refine", "fit"]


def test_stage() -> None:
    names = run_example("factory/line/stage.py", Stage=Stage, IMAGE=IMAGE, pa=pa, unpack=unpack)
    row = empty_row(prompt_id="a", prompt="x") | {"image": pack(np.full((4, 4, 3), 51, np.uint8))}
    (found,) = names["Brightness"](None)(pa.Table.from_pylist([row], schema=LINE.append(IMAGE))).to_pylist()
    assert found["brightness"] == pytest.approx(0.2)
    assert found["error_stage"] is None


def test_sampling() -> None:
    names = run_example(
        "model/sampling.py", guided=guided, seeded_noise=seeded_noise, sample=sample, restart=restart,
        dpm_solver=dpm_solver, predict=lambda latents, timestep: 0.1 * latents,
    )  # fmt: skip
    assert names["clean"].shape == names["again"].shape == (2, 4, 16, 16)
    assert torch.isfinite(names["again"]).all()
    assert not torch.equal(names["clean"], names["again"])
