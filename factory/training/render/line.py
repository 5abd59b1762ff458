"""Render meshes to shards of turntables as training data (3.2), in a line of one stage: `RenderTurntables`.

assets ── RenderTurntables ──▶ renders/part-*.parquet, or a row in dead_letters/
          load, 16 RGBA views, commit
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from factory.ledger.keys import digest
from factory.ledger.ledger import ROWS_PER_PART
from factory.ledger.schemas import chosen
from factory.line.one_stage_line import SingleStage
from factory.line.stage import Row
from factory.line.step import Step
from factory.prompts.assets import read_mesh, split_of_asset
from factory.storage.store import StorageConfig
from factory.training.render.settings import RenderConfig
from factory.training.shards.schema import ASSET_LINE, RENDER_DEAD_LETTERS, RENDER_STAGE, RENDERS

if TYPE_CHECKING:
    from factory.training.render.shape_variations import Warp
    from recon.meshes.mesh import Mesh

_MOST_BENT = np.array([0.5, 0.5, 0.6, 1.2])
"""Lean in x and z, taper, twist in radians for each unit of height."""
ASSEMBLED, ASSEMBLY = "a thing", "assembly"
"""Caption of an object put together at random, and what its asset's id ends in."""


@dataclass(kw_only=True, slots=True)
class RenderWork:
    """Turntables of assets as `work.Work`: `config.turntables` rows for each asset."""

    assets: Sequence[Row]
    config: RenderConfig
    by_split: dict[str, list[Row]] = field(init=False)
    """What is held back for validation is no part of what is trained on."""

    def __post_init__(self) -> None:
        self.by_split = {}
        for asset in self.assets:
            self.by_split.setdefault(split_of_asset(asset), []).append(asset)

    @property
    def ids(self) -> Sequence[str]:
        return [f"{asset['asset_id']}.{k}" for asset in self.assets for k in range(self.config.turntables)]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return pa.Table.from_pylist([self.row(row, attempt) for row in rows], schema=ASSET_LINE)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return chosen(self.row(row, error["attempt"]) | error, RENDER_DEAD_LETTERS), RENDER_DEAD_LETTERS

    def row(self, row: int, attempt: int) -> Row:
        """One turntable to render."""
        asset = self.assets[row // self.config.turntables]
        number = row % self.config.turntables
        turntable_id = f"{asset['asset_id']}.{number}"
        assembled = _random("assembly", turntable_id, self.config.seed).uniform() < self.config.assemblies
        other = self._companion(turntable_id, asset, 1.0 if assembled else self.config.companions)
        shown = {"companion": other, "assembled": assembled}
        return asset | {"turntable_id": turntable_id, "attempt": attempt} | shown

    def _companion(self, turntable_id: str, asset: Row, share: float) -> str | None:
        """Path of another asset of the same split, for the share of turntables that has one."""
        random = _random("companion", turntable_id, self.config.seed)
        others = self.by_split[split_of_asset(asset)]
        other = others[int(random.integers(len(others)))]
        wanted = random.uniform() < share
        return other["path"] if wanted and other is not asset and not other["error"] else None

    def unusable(self) -> list[Row]:
        """Dead letters of the rows that the table itself disqualifies."""
        count, found = self.config.turntables, []
        for place, asset in enumerate(self.assets):
            if asset["error"]:
                error = {"error_stage": "assets", "error_type": "UnusableRow", "error_message": asset["error"]}
                rows = (self.row(number, 1) for number in range(place * count, (place + 1) * count))
                found += [chosen(row | error, RENDER_DEAD_LETTERS) for row in rows]
        return found


def rows_per_part(size: int) -> int:
    """Turntables of a shard: the fewer the larger their frames, of `size` pixels a side, but at least 16."""
    return max(16, min(ROWS_PER_PART, ROWS_PER_PART * 128**2 // size**2))


def steps(config: RenderConfig, root: str, out: str, run_id: str, storage: StorageConfig) -> list[Step]:
    """The chain, in order. `root`: the folder, local or s3://, that the assets' paths are relative to."""
    arguments = {"config": config, "root": root, "out": out, "run_id": run_id, "storage": storage}
    return [Step(actor=RenderTurntables, pool=config.pool, arguments=arguments)]


class RenderTurntables(SingleStage):
    """Mesh to V RGBA views and their cameras, committed as a row of RENDERS or as a dead letter."""

    name, schema, dead_letters = RENDER_STAGE, RENDERS, RENDER_DEAD_LETTERS

    def __init__(
        self, config: RenderConfig, root: str, out: str, run_id: str, storage: StorageConfig, threads: int = 1,
        board: Any = None,
    ) -> None:  # fmt: skip
        self.root, self.storage = root, storage
        super().__init__(config, out, run_id, threads, board, storage)

    def make(self, row: Row) -> Row:
        """The views and cameras of one turntable; ValueError for a mesh that cannot be used."""
        from factory.stages.asset_files import png
        from recon.cameras import azimuths, turntable
        from recon.config import OrbitConfig
        from recon.meshes.load import check_drawn, render_turntable

        config, orbit = self.config, OrbitConfig(num_views=self.config.num_views)
        elevation, start = drawn(row["turntable_id"], config)[:2]
        mesh = self._mesh(row)
        frames = render_turntable(mesh, elevation, config.size, orbit.num_views, start)
        check_drawn(frames)
        cameras = turntable(elevation, config.size, orbit, start)
        return {
            "frames": [{"bytes": png(frame), "path": f"{k:02d}.png"} for k, frame in enumerate(frames)],
            "elevation": elevation,
            "azimuths": azimuths(orbit, start).tolist(),
            "size": config.size,
            "fov_degrees": orbit.fov_degrees,
            "distance": orbit.distance,
            "viewmats": cameras.viewmats.double().flatten(1).tolist(),
        } | (_own_name(row) if row["assembled"] else {})

    def _mesh(self, row: Row) -> Mesh:
        from factory.training.render.assembly import assembled
        from factory.training.render.shape_variations import beside, warped

        mesh = read_mesh(row["path"], self.root, self.storage)
        other = read_mesh(row["companion"], self.root, self.storage) if row["companion"] else None
        _, _, warp, (scale, place) = drawn(row["turntable_id"], self.config)
        if row["assembled"]:
            mesh = assembled([mesh, other or mesh], _random("parts", row["turntable_id"], self.config.seed))
        if not warp.idle:
            mesh = warped(mesh, warp)
        return beside(mesh, other, scale, place) if other and not row["assembled"] else mesh


def drawn(turntable_id: str, config: RenderConfig) -> tuple[float, float, Warp, tuple[float, float]]:
    """Elevation and start azimuth in radians, change of shape, and a companion's scale and azimuth.

    From the seed and the turntable's own id.
    """
    from factory.training.render.shape_variations import Warp

    random = _random("view", turntable_id, config.seed)
    elevation = random.uniform(0, math.radians(config.max_elevation_degrees))
    start = random.uniform(0, 2 * math.pi)
    factors = config.stretch ** random.uniform(-1, 1, 3)
    lean_x, lean_z, taper, twist = config.bend * random.uniform(-1, 1, 4) * _MOST_BENT
    warp = Warp(factors=tuple(factors), lean=(lean_x, lean_z), taper=taper, twist=twist)
    return elevation, start if config.random_start else 0.0, warp, (random.uniform(0.4, 1), random.uniform(0, math.tau))


def _own_name(row: Row) -> Row:
    """An object put together is an asset of its own: captions and choices of the one it is named after are not its."""
    return {"asset_id": f"{row['asset_id']}.{ASSEMBLY}", "caption": ASSEMBLED, "split": split_of_asset(row)}


def _random(purpose: str, turntable_id: str, seed: int) -> np.random.Generator:
    return np.random.default_rng(int(digest(purpose, turntable_id, str(seed)), 16))
