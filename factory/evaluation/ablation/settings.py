"""Name the variants that an ablation compares (Tables 2 and 3): `AblationConfig`. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from eval.config import ClipConfig
from factory.config.settings import preset
from factory.line.cpus import available_cpus
from factory.line.placement import Pool
from model.config import VideoConfig
from model.views import PAPER_VIEWS
from recon.config import FitConfig, MeshConfig, PoseConfig
from recon.nerf_config import NerfConfig
from recon.user_error import UserError

FULL = "full"
NUM_FRAMES = PAPER_VIEWS
ROUND_SHARES = (5 / 12, 10 / 12)
"""Where the rounds lie among the iterations: 500 and 1,000 of 1,200 (A.1)."""


@dataclass(kw_only=True, slots=True)
class Plan:
    """How one variant reconstructs."""

    fit: FitConfig
    frames: int = NUM_FRAMES
    """Targets, at uniform azimuths: 16, 8 or 4."""
    rounds: int = 0
    """Rounds of refinement, 0 to 2."""
    nerf: bool = False
    """A voxel field instead of Gaussians."""
    mesh: Literal["none", "extracted", "optimised"] = "none"
    """The mesh of the Gaussians is judged in their place: as it is extracted, or optimised (A.7)."""

    @property
    def rounds_at(self) -> tuple[int, ...]:
        """The iterations after which the targets are re-denoised."""
        return tuple(round(share * self.fit.iterations) for share in ROUND_SHARES[: self.rounds])


@dataclass(kw_only=True, slots=True)
class Variant:
    """A row of a table."""

    label: str
    table: str
    """Which of TABLES it belongs to."""
    change: Callable[[Plan], Plan]
    paper: str | None = None
    """Label of the paper's own row."""


TABLES = {
    "loss": "Loss terms and representation (Table 2)",
    "frames": "Fewer frames (Table 3)",
    "rounds": "Rounds of refinement (3.4, Figure 4)",
    "mesh": "Meshes (A.7, Figure 9)",
    "start": "Where the Gaussians start",
    "densify": "Densification",
    "views": "Views that are not where they should be",
}


def _fit(**changes: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, fit=replace(plan.fit, **changes))


def _loss(**weights: float) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, fit=replace(plan.fit, loss=replace(plan.fit.loss, **weights)))


def _densify(**changes: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, fit=replace(plan.fit, densify=replace(plan.fit.densify, **changes)))


def _frames(count: int) -> Callable[[Plan], Plan]:
    """The embedded video model makes and refines 16 frames, so that fewer are taken from its 16 and never refined."""
    return lambda plan: replace(plan, frames=count, rounds=0)


def _rounds(count: int) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, rounds=count)


def _mesh(kind: Literal["extracted", "optimised"]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, mesh=kind)


_NEVER = {"until": 0.0, "prune_opacity": 0.0, "prune_scale": 1e6, "prune_hidden": False, "method": "paper"}
VARIANTS = {
    "no-lpips": Variant(label="- LPIPS", table="loss", change=_loss(lpips=0.0), paper="- LPIPS"),
    "rgb-for-lpips": Variant(
        label="- RGB (L2) instead of LPIPS", table="loss", change=_loss(lpips=0.0, rgb=10.0),
        paper="- RGB instead of LPIPS",
    ),
    "rgb-only": Variant(label="RGB (L2) alone", table="loss", change=_loss(lpips=0.0, ms_ssim=0.0, mask=0.0, rgb=10.0)),
    "no-ms-ssim": Variant(label="- MS-SSIM", table="loss", change=_loss(ms_ssim=0.0), paper="- SSIM"),
    "no-mask": Variant(label="- mask", table="loss", change=_loss(mask=0.0), paper="- Mask"),
    "nerf": Variant(
        label="w/ NeRF instead of Gaussians", table="loss", change=lambda plan: replace(plan, nerf=True, rounds=0),
        paper="w/ NeRF instead of GS",
    ),
    "frames-8": Variant(label="8 frames", table="frames", change=_frames(8), paper="8 (paper)"),
    "frames-4": Variant(label="4 frames", table="frames", change=_frames(4), paper="4 (paper)"),
    "rounds-0": Variant(label="no round", table="rounds", change=_rounds(0)),
    "rounds-1": Variant(label="1 round", table="rounds", change=_rounds(1)),
    "rounds-2": Variant(label="2 rounds", table="rounds", change=_rounds(2)),
    "mesh-extracted": Variant(label="their mesh, extracted", table="mesh", change=_mesh("extracted")),
    "mesh-optimised": Variant(label="their mesh, optimised", table="mesh", change=_mesh("optimised")),
    "start-ball": Variant(label="in a ball (A.1)", table="start", change=_fit(init="ball")),
    "start-hull": Variant(label="in the visual hull", table="start", change=_fit(init="hull")),
    "densify-paper": Variant(label="clone, split, prune", table="densify", change=_densify(method="paper")),
    "densify-mcmc": Variant(label="MCMC", table="densify", change=_densify(method="mcmc")),
    "densify-none": Variant(label="none", table="densify", change=_densify(**_NEVER)),
    "pose-elevation": Variant(
        label="w/ elevation optimised", table="views", change=_fit(pose=PoseConfig(elevation=True))
    ),
    "pose-all": Variant(
        label="w/ elevation, views and exposure optimised", table="views",
        change=_fit(pose=PoseConfig(elevation=True, views=True, exposure=True)),
    ),
    "robust": Variant(label="w/ robust view weights", table="views", change=_fit(robust=2.0)),
}  # fmt: skip
"""Every variant but the full method."""


@dataclass(kw_only=True, slots=True)
class AblationConfig:
    """What all variants have in common."""

    targets: Literal["true", "generated"] = "generated"
    """What is fitted: a turntable generated from the true first view, or the true views."""
    variants: tuple[str, ...] = ()
    """Some of the variants; empty for all that differ from the full method."""
    rounds: Literal[0, 1, 2] = 0
    """Rounds of refinement in the full method, after 5/12 and 10/12 of the iterations (A.1)."""
    mix: float = 0.5
    """Share of the re-denoised frames in the new targets, in (0, 1]; 1 is the paper's."""
    elevation_error_degrees: float = 0.0
    """Added to the elevation that the fit is given, in [-45, 45]: the true one, or the estimate of A.1."""
    size: int = 128
    """Pixels a side, in [32, 512]; generated targets want the video model's."""
    seed: int = 0
    """Of elevations, turntables and fits."""
    fit: FitConfig = field(default_factory=FitConfig)
    nerf: NerfConfig = field(default_factory=NerfConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How the variants of meshes are made; which of them is optimised is up to the variant."""
    video: VideoConfig = field(default_factory=lambda: preset("pocket").video)
    clip: ClipConfig = field(default_factory=ClipConfig)
    pool: Pool = field(default_factory=lambda: Pool(actors=available_cpus()))
    """The fitting actors."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise UserError(f"variant {unknown[0]!r} not found. Available: {', '.join(VARIANTS)}")
        if not 0 < self.mix <= 1:
            raise UserError(f"mix is {self.mix}; it must lie in (0, 1]")
        if not -45 <= self.elevation_error_degrees <= 45:
            raise UserError(f"elevation_error_degrees is {self.elevation_error_degrees}; it must lie in [-45, 45]")
        if not 32 <= self.size <= 512:
            raise UserError(f"size is {self.size}; it must lie in [32, 512] pixels")
        if self.size % self.nerf.size and any(self.plan(name).nerf for name in self.chosen()):
            raise UserError(f"size is {self.size}, no multiple of nerf.size {self.nerf.size}; set that to a divisor")

    def plan(self, variant: str) -> Plan:
        """How `variant`, or the full method, reconstructs."""
        full = Plan(fit=self.fit, rounds=self.rounds)
        return full if variant == FULL else VARIANTS[variant].change(full)

    def chosen(self) -> list[str]:
        """The full method, then the variants that differ from it."""
        full = self.plan(FULL)
        return [FULL, *(name for name in self.variants or VARIANTS if self.plan(name) != full)]

    def identity(self) -> dict[str, Any]:
        """The settings that every row depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("variants", "pool", "address")}
