"""Fit real assets by every variant of the method and judge the fits against the truth: the stage `Fit`.

assets x variants ── Fit ──▶ fits/part-*.parquet, or a row in dead_letters/
                     targets (kept for the asset's next variant), reconstruct, judge, commit
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.evaluation.ablation.settings import NUM_FRAMES, AblationConfig, Plan
from factory.evaluation.ablation.work import FIT_DEAD_LETTERS, STAGE, fits_schema
from factory.ledger.keys import digest
from factory.line.one_stage_line import SingleStage
from factory.line.stage import Row
from factory.line.step import Step
from factory.storage.interface import StorageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from recon.cameras import Cameras
    from recon.gaussians import Gaussians

UNSEEN_VIEWS, SHOWN_VIEWS = 8, 4
MAX_ELEVATION_DEGREES = 40.0


def steps(config: AblationConfig, root: str, out: str, run_id: str, storage: StorageConfig) -> list[Step]:
    """The chain: one stage. `root`: the folder, local or s3://, that the assets' paths are relative to."""
    arguments = {"config": config, "root": root, "out": out, "run_id": run_id, "storage": storage}
    return [Step(actor=Fit, pool=config.pool, arguments=arguments)]


@dataclass(kw_only=True, slots=True)
class Targets:
    """What an asset's variants are fitted to and judged by."""

    asset_id: str
    frames: NDArray[np.uint8]
    """[16,S,S,4]: true or generated."""
    image: NDArray[np.uint8]
    """[S,S,4]: the true first view."""
    unseen: NDArray[np.uint8]
    """[8,S,S,4]: true views half a step beside the frames'."""
    elevation: float
    """Of all true views, radians."""
    assumed: float
    """What the fit takes it for, radians."""


class Fit(SingleStage):
    """One asset by one variant, committed as a row of fits or as a dead letter."""

    name, dead_letters = STAGE, FIT_DEAD_LETTERS

    def __init__(
        self, config: AblationConfig, root: str, out: str, run_id: str, storage: StorageConfig, threads: int = 1,
        board: Any = None,
    ) -> None:  # fmt: skip
        self.root = root
        self.known: Targets | None = None
        super().__init__(config, out, run_id, threads, board, storage)

    def load(self) -> None:
        """Load judge and perceptual network, and the video model where a variant refines or targets are generated."""
        from eval.clip import Scorer
        from factory.config.settings import ViewsConfig
        from factory.stages.find_views import ViewFinder
        from factory.weights.folder import local_judge
        from model.video import load_video_model
        from recon.config import OrbitConfig
        from recon.perceptual import load_perceptual

        config = self.config
        self.scorer, self.perceptual = Scorer.load(local_judge(config.clip), self.device()), load_perceptual("pocket")
        self.schema, self.model = fits_schema(self.scorer.name), None
        self.finder = ViewFinder(ViewsConfig(), OrbitConfig())
        if config.targets == "generated" or any(config.plan(name).rounds for name in config.chosen()):
            video = replace(config.video, device=self.device(config.video.device))
            self.model = load_video_model(video)
        warm_up()

    def make(self, row: Row) -> Row:
        """Reconstruct and judge; ValueError for an asset that cannot be used."""
        from eval.score_columns import clip_column
        from eval.similarity import score_views
        from factory.evaluation.truth import judge
        from factory.stages.asset_files import png
        from recon.cameras import OrbitConfig, turntable

        if self.known is None or self.known.asset_id != row["asset_id"]:
            self.known = self.targets(row)
        targets, orbit = self.known, OrbitConfig(num_views=UNSEEN_VIEWS)
        cameras = turntable(targets.elevation, self.config.size, orbit, math.pi / NUM_FRAMES)
        cpu = time.process_time()
        (rgb, alpha), costs = self.reconstruct(targets, self.config.plan(row["variant"]), row["caption"], cameras)
        costs["cpu_seconds"] = time.process_time() - cpu
        rgb, alpha = (image.clamp(0, 1).cpu().numpy() for image in (rgb, alpha[..., 0]))
        views = np.rint(255 * rgb).astype(np.uint8)
        found = judge(targets.unseen, rgb, alpha, self.perceptual)
        scores = score_views(self.scorer, "renders", views, row["caption"] or "", targets.image[..., :3], {})
        for against in ("text", "image"):
            column = clip_column(against, "renders", self.scorer.name)
            found[f"clip_{against}_{self.scorer.name}"] = scores[column]
        step = UNSEEN_VIEWS // SHOWN_VIEWS
        sheet = np.concatenate([np.hstack(list(part[::step])) for part in (targets.unseen[..., :3], views)])
        picture = {"bytes": png(sheet), "path": f"{row['fit_id']}.png"}
        return found | costs | {"elevation": targets.elevation, "elevation_given": targets.assumed, "picture": picture}

    def targets(self, row: Row) -> Targets:
        """Render, and generate where generated targets are wanted."""
        from factory.evaluation.truth import true_turntable
        from factory.prompts.assets import read_mesh
        from recon.meshes.load import check_drawn

        if row["error"]:
            raise ValueError(row["error"])
        random = np.random.default_rng(int(digest("ablation", row["asset_id"], str(self.config.seed)), 16))
        elevation = math.radians(random.uniform(0, MAX_ELEVATION_DEGREES))
        mesh, size = read_mesh(row["path"], self.root, self.storage), self.config.size
        frames, assumed = true_turntable(mesh, elevation, size, NUM_FRAMES), elevation
        check_drawn(frames)
        unseen, image = true_turntable(mesh, elevation, size, UNSEEN_VIEWS, math.pi / NUM_FRAMES), frames[0]
        if self.model and self.config.targets == "generated":
            model = self.model
            model.views.check(NUM_FRAMES)
            frames = model.generate(image[None], [row["caption"] or ""], [self.config.seed])[0]
            assumed = self.finder.find(frames, model.views).elevation
        assumed += math.radians(self.config.elevation_error_degrees)
        return Targets(
            asset_id=row["asset_id"],
            frames=frames,
            image=image,
            unseen=unseen,
            elevation=elevation,
            assumed=assumed,
        )

    def reconstruct(
        self, targets: Targets, plan: Plan, caption: str | None, cameras: Cameras
    ) -> tuple[tuple[Tensor, Tensor], Row]:
        """Renders (rgb [V,S,S,3], alpha [V,S,S,1]) of the fit by `cameras`, and what it cost."""
        from factory.stages.reconstruct import CountingRefiner
        from recon.cameras import OrbitConfig, turntable
        from recon.config import RefineConfig
        from recon.device import device_of
        from recon.gaussians import render
        from recon.masks import masks_of
        from recon.memory import PeakMemory
        from recon.nerf import fit_nerf
        from recon.refine import LoopConfig, Turntable, reconstruct

        step, config = NUM_FRAMES // plan.frames, self.config
        frames, masks = targets.frames[::step], masks_of(targets.frames, self.finder.masker)[::step]
        if plan.nerf:
            orbit = turntable(targets.assumed, config.size, OrbitConfig(num_views=plan.frames))
            result = fit_nerf(frames, masks, orbit, replace(config.nerf, loss=plan.fit.loss), config.seed)
            costs = {"seconds": result.seconds, "peak_bytes": result.peak_bytes, "forwards": 0}
            return result.field.render(cameras, config.nerf.rays), costs
        refiner = CountingRefiner(self.model) if self.model else None
        given = Turntable(
            frames=frames, masks=masks, elevation=targets.assumed, image=targets.image, prompt=caption or ""
        )
        fit = replace(plan.fit, device=self.device(plan.fit.device))
        loop = LoopConfig(fit=fit, refine=RefineConfig(rounds_at=plan.rounds_at, mix=config.mix))
        started = time.perf_counter()
        with PeakMemory(device_of(fit.device)) as memory:
            gaussians, history = reconstruct(given, loop, refiner, self.finder.masker, config.seed)
            views = None if plan.mesh == "none" else self.mesh_views(gaussians, history[-1], plan, cameras)
        costs = {"seconds": time.perf_counter() - started, "peak_bytes": memory.bytes, "num_gaussians": len(gaussians)}
        costs["forwards"] = refiner.counts["forwards_refine"] if refiner else 0
        return views or render(gaussians, cameras), costs

    def mesh_views(self, gaussians: Gaussians, fitted: Row, plan: Plan, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Renders (rgb [V,S,S,3], alpha [V,S,S,1]) by the renderer of meshes; `fitted`: the fit's last record."""
        import torch

        from recon.dmtet.optimise import optimised_mesh
        from recon.mesh import glb_bytes, meshes_of
        from recon.meshes.load import load_mesh, render_mesh

        if plan.mesh == "optimised":
            levels = optimised_mesh(gaussians, fitted, self.config.mesh, plan.fit, seed=self.config.seed)[0]
        else:
            levels = meshes_of(gaussians, self.config.mesh, fitted["cameras"])
        views = torch.from_numpy(render_mesh(load_mesh(glb_bytes(levels[0]), in_place=True), cameras) / 255).float()
        return views[..., :3], views[..., 3:]


def warm_up() -> None:
    """Have the rasteriser's kernels compiled, so that the first fit's seconds are those of a fit."""
    from recon.config import FitConfig
    from recon.refine import LoopConfig, Turntable, reconstruct

    frames = np.full((1, 32, 32, 4), 128, np.uint8)
    reconstruct(Turntable(frames=frames, elevation=0.0), LoopConfig(fit=FitConfig(iterations=2, num_points=50)))
