"""Reconstruct Gaussians from frames: the stage `Reconstruct`. Heavy packages are imported inside the actor only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from factory.ledger.schemas import unpack
from factory.line.cpus import available_cpus
from factory.line.network import Network
from factory.line.placement import Pool
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, FRAMES, GAUSSIANS, IMAGE, MASKS, MESH, NUM_GAUSSIANS, VIEW_PLAN
from factory.stages.masker import Masker
from factory.stages.view_plans import orbit_of, plan_of

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig
    from recon.gaussians import Gaussians
    from recon.refine import LoopConfig, Turntable

FACE_BYTES = 32
_LOSS = pa.struct([("step", pa.int32()), ("name", pa.string()), ("value", pa.float64())])


class Reconstruct(Stage):
    """Frames to Gaussians, with every round of re-denoising inside this one actor."""

    name, calls, grows, gpu_batch = "reconstruct", "refine", True, 8
    sections = ("video", "views", "orbit", "fit", "refine", "yields", "mesh")
    reads, uses = (IMAGE, FRAMES, MASKS, ELEVATION), (VIEW_PLAN,)
    writes = (
        GAUSSIANS,
        MESH,
        # of another turntable where the first is unusable; the elevation as corrected
        *(FRAMES, MASKS, ELEVATION, VIEW_PLAN),
        NUM_GAUSSIANS,
        pa.field("mesh_faces", pa.int32()),  # triangles of the mesh, where one is wanted
        pa.field("device", pa.string()),
        pa.field("yield_score", pa.float64()),  # probability that no asset comes of the turntable, where it was judged
        pa.field("yield_reasons", pa.list_(pa.string())),
        pa.field("losses", pa.list_(_LOSS)),  # at the end of each part of the fit; those of the mesh as mesh_*
        *(pa.field(f"{kind}_video", pa.int32()) for kind in ("steps", "forwards")),  # of other turntables too
    )
    pool = Pool(actors=available_cpus())

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        """With as many Gaussians as there may be."""
        floats = 14 + 3 * (config.fit.sh_degree + 1) ** 2
        mesh = FACE_BYTES * config.mesh.faces * config.mesh.enabled
        return 4 * floats * config.fit.densify.max_gaussians + mesh

    @classmethod
    def expected_seconds(cls, config: FactoryConfig) -> float:
        rounds = len(config.refine.within(config.fit.iterations))
        refining = rounds * config.video.refine_steps * networks.seconds_a_step(config.video)
        return 0.015 * config.fit.iterations + refining

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        """The perceptual network, and where they are used video model, masks, yield gate and elevation."""
        found = networks.perceptual(config.fit.loss)
        if wants_video_model(config):
            found += [networks.turntable(config), *networks.loras(config.video), networks.masks(config.views.masks)]
        if config.yields.enabled:
            found += [networks.yield_gate(), networks.masks(config.views.masks), *networks.elevation(config.views)]
        return found

    @classmethod
    def devices(cls, config: FactoryConfig) -> list[str]:
        return [config.fit.device, *([config.video.device] if wants_video_model(config) else [])]

    def load(self) -> None:
        """Load the fit's kernels, the video model where rounds refine or turntables are tried again, and the yield gate
        where enabled."""
        from model.video import load_video_model
        from recon.fit_kernels import load_fit_kernels

        load_fit_kernels(self._loop(exact=True).fit)

        self.model = None
        if wants_video_model(self.config):
            video = replace(self.config.video, device=self.device(self.config.video.device))
            self.model = load_video_model(video)
        self.masker = Masker(self.config.views.masks, self.device(), self.pool.threads)
        if self.config.yields.enabled:
            from factory.stages.find_views import ViewFinder
            from recon.yield_gate import load_yield_model

            self.judge = load_yield_model()
            self.finder = ViewFinder(self.config.views, self.config.orbit, self.device(), self.pool.threads)
            self.masker = self.finder.masker

    def _choose_turntable(self, row: Row) -> None:
        """Judge the row's turntable, and generate others while it is bad; the best one stays in the row."""
        candidate = {name: row.get(name) for name in ("frames", "masks", "elevation", "view_plan")}
        for attempt in range(1, self.config.yields.retries + 2):
            score, reasons = self._judge(candidate)
            if row["yield_score"] is None or score < row["yield_score"]:
                row.update(candidate, yield_score=score, yield_reasons=reasons)
            if score <= self.config.yields.threshold or attempt > self.config.yields.retries:
                return
            model = self.model
            assert model is not None, "load() brings the model along wherever there are retries"
            seed = row["seed"] + 7919 * attempt
            frames = model.generate(unpack(row["image"])[None], [row["prompt"]], [seed])[0]
            for kind, count in model.num_evaluations.items():
                row[f"{kind}_video"] = (row.get(f"{kind}_video") or 0) + count
            candidate = self.finder.find(frames, model.views).columns()

    def _judge(self, turntable: Row) -> tuple[float, list[str]]:
        """The probability that it is unusable, and why; certain for what cannot be fitted at all, as blank frames."""
        from recon.yield_gate import FEATURES, measure

        frames, masks = unpack(turntable["frames"]), unpack(turntable["masks"])
        plan = plan_of(turntable, len(frames), self.config.orbit)
        chosen, seen = list(plan.chosen), orbit_of(turntable, self.config.orbit)
        azimuths = [plan.azimuths[k] for k in chosen]
        try:
            features = measure(frames[chosen], masks[chosen], turntable["elevation"], seen, azimuths)
        except ValueError as error:
            return 1.0, [str(error)]
        return self.judge.probability(features), self.judge.reasons(features, FEATURES)

    def process(self, rows: list[Row]) -> None:
        """Fit rows of one size together, each to its own turntable, which the yield gate may have chosen."""
        unknown = dict.fromkeys(("view_plan", "steps_video", "forwards_video"))  # of frames of another's stage
        for row in rows:
            row.update(unknown | row | {"yield_score": None, "yield_reasons": None})
            if self.config.yields.enabled:
                self._choose_turntable(row)
        given = [self._turntable(row) for row in rows]
        kinds = [(one.frames.shape[1:], _exact(row)) for row, one in zip(rows, given, strict=True)]
        for kind in dict.fromkeys(kinds):
            alike = [number for number, other in enumerate(kinds) if other == kind]
            self._fit([rows[number] for number in alike], [given[number] for number in alike])

    def _turntable(self, row: Row) -> Turntable:
        from recon.refine import Turntable

        frames = unpack(row["frames"])
        plan = plan_of(row, len(frames), self.config.orbit)
        return Turntable(
            frames=frames,
            masks=unpack(row["masks"]),
            elevation=row["elevation"],
            image=unpack(row["image"]),
            prompt=row["prompt"],
            azimuths=plan.azimuths,
            chosen=plan.chosen,
            orbit=orbit_of(row, self.config.orbit),
        )

    def _fit(self, rows: list[Row], given: list[Turntable]) -> None:
        """Reconstruct turntables of one size and certainty in one optimisation, and set the columns of their rows."""
        from recon.refine import reconstruct_batch

        refiners = [CountingRefiner(self.model) for _ in rows]
        seeds = [row["seed"] for row in rows]
        fitted = reconstruct_batch(
            given, self._loop(_exact(rows[0])), refiners if self.model else None, self.masker, seeds
        )
        for row, one, refiner, (gaussians, history) in zip(rows, given, refiners, fitted, strict=True):
            row["mesh"] = row["mesh_faces"] = None
            records = self._mesh(row, one, gaussians, history[-1], refiner) if self.config.mesh.enabled else []
            self._write(row, gaussians, history + records)
            row.update(refiner.counts)

    def _loop(self, exact: bool) -> LoopConfig:
        """The settings of fit and rounds, with device and files of this machine."""
        from model.weights import fetched
        from recon.refine import LoopConfig

        loss = self.config.fit.loss
        loss = replace(loss, perceptual_weights=fetched(loss.perceptual_weights))
        fit = replace(self.config.fit, device=self.device(self.config.fit.device), loss=loss)
        if not exact:
            fit = replace(fit, pose=replace(fit.pose, views=True))  # estimated azimuths miss by some degrees
        return LoopConfig(fit=fit, refine=self.config.refine)

    def _write(self, row: Row, gaussians: Gaussians, history: list[dict[str, Any]]) -> None:
        from factory.stages.asset_ply import ply_bytes

        row["gaussians"] = ply_bytes(gaussians)
        row["num_gaussians"], row["elevation"] = len(gaussians), history[-1]["elevation"]
        row["losses"] = [
            {"step": part["iteration"], "name": name, "value": float(value)}
            for part in history
            for name, value in part["losses"].items()
        ]
        row["device"] = str(gaussians.means.device)

    def _mesh(self, row: Row, given: Turntable, gaussians: Gaussians, fitted: Row, refiner: Any) -> list[Row]:
        """Make the row's mesh; returns its losses as records of the history, with steps after those of the fit."""
        from recon.dmtet.optimise import optimised_mesh
        from recon.mesh import glb_bytes, meshes_of
        from recon.refine import redenoiser

        config, loop, records = self.config.mesh, self._loop(_exact(row)), []
        if config.optimise:
            seed = row["seed"] + len(loop.refine.within(loop.fit.iterations))
            redenoise = redenoiser(refiner, self.masker, given, fitted, loop.refine.mix, seed) if self.model else None
            levels, records = optimised_mesh(gaussians, fitted, config, loop.fit, redenoise, row["seed"])
        else:
            levels = meshes_of(gaussians, config, fitted["cameras"])
        row["mesh"], row["mesh_faces"] = glb_bytes(levels), len(levels[0].faces)
        return [
            {
                "elevation": fitted["elevation"],
                "iteration": fitted["iteration"] + part["iteration"],
                "losses": {f"mesh_{name}": value for name, value in part["losses"].items()},
            }
            for part in records
        ]


def _exact(row: Row) -> bool:
    """Whether the azimuths of a row's frames are those that its model promises."""
    return row.get("view_plan") is None or row["view_plan"]["exact"]


def wants_video_model(config: Any) -> bool:
    """Whether the settings `refine`, `fit`, `yields` and `mesh` have frames generated during the reconstruction."""
    mesh = config.mesh.enabled and config.mesh.optimise and config.mesh.rounds_at
    return bool(config.refine.within(config.fit.iterations) or config.yields.retries or mesh)


class CountingRefiner:
    """The video model as `recon.refine.Refiner` of one asset, one video at a time, adding up network evaluations."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.counts = {"steps_refine": 0, "forwards_refine": 0}

    def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """Frames uint8 [V,H,W,3|4] after noise and denoising, same shape."""
        refined = self.model.refine(frames[None], image[None], [prompt], [seed])[0]
        for kind, count in self.model.num_evaluations.items():
            self.counts[f"{kind}_refine"] += count
        return refined
