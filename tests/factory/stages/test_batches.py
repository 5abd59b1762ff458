"""Rows that are reconstructed together come out as alone, and fail alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch

from factory.config.settings import FactoryConfig
from factory.ledger.schemas import LINE, empty_row, pack
from factory.line.placement import Pool
from factory.line.rows import rows_of
from factory.line.settings import LineConfig
from factory.stages.chain import pools_of
from factory.stages.columns import ELEVATION, FRAMES, IMAGE, MASKS
from factory.stages.reconstruct import Reconstruct
from recon.cameras import OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig, RefineConfig
from recon.fit_kernels import counted
from recon.gaussians import init_ball
from recon.loss_weights import LossConfig
from recon.refine import views_of

MADE = ("gaussians", "num_gaussians", "elevation", "losses", "steps_refine", "forwards_refine", "device")


class Darker:
    """A refiner that darkens, and counts."""

    num_evaluations: ClassVar[dict[str, int]] = {"steps": 3, "forwards": 6}

    def refine(self, frames: np.ndarray, image: np.ndarray, prompts: Any, seeds: Any) -> np.ndarray:
        colours = frames[..., :3] * 0.9 + 25 * (frames[..., 3:] < 1)
        return np.concatenate([colours, frames[..., 3:]], -1).astype(np.uint8)


class Together(Reconstruct):
    """The real stage with small fits; remembers how many rows it was given at a time."""

    own_process = False
    pool = Pool(batch=4)

    def load(self) -> None:
        self.model, self.masker, self.given = Darker(), None, []

    def process(self, rows: list[dict[str, Any]]) -> None:
        self.given.append(len(rows))
        super().process(rows)


def table(count: int, sizes: tuple[int, ...] = (24,), spoil: int | None = None) -> pa.Table:
    schema = pa.schema([*LINE, IMAGE, FRAMES, MASKS, ELEVATION])
    rows = []
    for seed in range(count):
        thing = init_ball(100 + 20 * seed, radius=0.6, opacity=0.9, generator=torch.Generator().manual_seed(seed))
        frames = views_of(thing, turntable(0.3, sizes[seed % len(sizes)], OrbitConfig(num_views=4)), 4)
        row = empty_row(prompt_id=f"p{seed}", prompt="x", seed=seed)
        masks = frames[..., 3] if seed != spoil else frames[..., 3, None]
        row |= {"image": pack(frames[0]), "frames": pack(frames), "masks": pack(masks), "elevation": 0.3}
        rows.append({name: row.get(name) for name in schema.names})
    return pa.Table.from_pylist(rows, schema)


@pytest.fixture
def stage() -> Together:
    fit = FitConfig(iterations=12, num_points=60, loss=LossConfig(lpips=0, rgb=10),
                    densify=DensifyConfig(every=5, max_gaussians=200), device="cpu")  # fmt: skip
    return Together(FactoryConfig(fit=fit, refine=RefineConfig(rounds_at=(6,))))


def made(stage: Together, given: pa.Table) -> list[dict[str, Any]]:
    names = [*(field.name for field in stage.writes), *MADE]
    return rows_of(stage(given), names)


def test_rows_together_equal_rows_alone_to_the_byte(stage: Together) -> None:
    together = made(stage, table(3, sizes=(24, 24, 16)))
    assert stage.given == [3]
    for number, row in enumerate(together):
        (alone,) = made(stage, table(3, sizes=(24, 24, 16)).slice(number, 1))
        assert row["error_stage"] is None, row["error_message"]
        assert all(bytes(row[k]) == bytes(alone[k]) if k == "gaussians" else row[k] == alone[k] for k in MADE)
        assert (row["steps_refine"], row["forwards_refine"]) == (3, 6)


def test_the_first_asset_comes_to_no_kernel_that_loading_has_not(stage: Together) -> None:
    loaded = counted()
    assert sum(loaded) >= 10
    made(stage, table(1))
    assert counted() == loaded


def test_a_bad_row_fails_alone(stage: Together) -> None:
    rows = made(stage, table(3, spoil=1))
    assert stage.given == [3, 1, 1, 1]
    assert [row["error_stage"] for row in rows] == [None, "reconstruct", None]
    assert rows[1]["gaussians"] is None
    assert all(row["num_gaussians"] > 0 for row in (rows[0], rows[2]))


def test_a_batch_that_is_too_large_is_halved(stage: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = stage._fit

    def small_memory(rows: list[Any], given: list[Any]) -> None:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        fit(rows, given)

    monkeypatch.setattr(stage, "_fit", small_memory)
    assert [row["error_stage"] for row in made(stage, table(4))] == [None] * 4
    assert stage.given == [4, 2, 2]
    stage.given.clear()
    made(stage, table(4))
    assert stage.given == [2, 2]


def test_the_first_row_on_a_gpu_tells_how_many_fit(monkeypatch: pytest.MonkeyPatch, stage: Together) -> None:
    """A card of 20 GB of which the actor has half, and rows of 2 GB: 0.85 x 10 / 2 = 4 rows."""
    gigabyte = 1 << 30
    memory = {
        "is_available": lambda: True, "is_initialized": lambda: False, "memory_allocated": lambda: gigabyte,
        "reset_peak_memory_stats": lambda: None, "max_memory_allocated": lambda: 3 * gigabyte,
        "mem_get_info": lambda: (19 * gigabyte, 20 * gigabyte), "memory_reserved": lambda: 0,
    }  # fmt: skip
    for name, value in memory.items():
        monkeypatch.setattr(torch.cuda, name, value)
    kind = type("Shared", (Together,), {"pool": Pool(gpus=0.5, batch=8)})
    sized = kind(stage.config)
    sized.device = lambda wanted="auto": "cpu"
    made(sized, table(2))
    assert sized.given == [1, 1]
    assert sized.fits == 4
    sized.given.clear()
    made(sized, table(5))
    assert sized.given == [4, 1]


def test_batches_come_by_themselves_on_gpus_alone(tmp_path: Path) -> None:
    config = FactoryConfig(line=LineConfig())
    assert {pool.batch for pool in pools_of(config).values()} == {1}
    config.line.pools.update({"all": {"gpus": 0.2}, "video": {"batch": 2}})
    sizes = {name: pool.batch for name, pool in pools_of(config).items()}
    assert sizes == {"image": 8, "video": 2, "views": 1, "reconstruct": 8, "score": 1, "commit": 1}
