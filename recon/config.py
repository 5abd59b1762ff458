"""Set the reconstruction: `FitConfig`, `RefineConfig`, `OrbitConfig`, `MeshConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recon.loss_weights import LossConfig
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True, frozen=True)
class OrbitConfig:
    """The fixed turntable geometry of the paper (3.1): only the elevation varies."""

    num_views: int = 16
    """Cameras at uniform azimuths, 2*pi/num_views apart. In a run: the re-rendered views that are written and scored;
    a fit takes as many as the video model makes."""
    fov_degrees: float = 40.0
    """Horizontal and vertical field of view, in (0, 120)."""
    distance: float = 3.0115
    """Camera to origin, in units of the object's bounding-sphere radius, > 1."""

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise UserError(f"num_views is {self.num_views}; it must be at least 1")
        if not 0 < self.fov_degrees < 120:
            raise UserError(f"fov_degrees is {self.fov_degrees}; it must lie in (0, 120)")
        if not 1 < self.distance < float("inf"):
            raise UserError(f"distance is {self.distance}; it must exceed 1, the object's radius, and be finite")


def check(name: str, settings: Any, above: tuple[str, ...] = (), least: tuple[str, ...] = ()) -> None:
    """A ValueError for the first of the fields `above` that is not > 0, or of `least` that is not >= 0, and finite."""
    for field_name in (*above, *least):
        value = getattr(settings, field_name)
        if not 0 <= value < float("inf") or (field_name in above and value == 0):
            bound = "> 0" if field_name in above else ">= 0"
            raise UserError(f"{name}.{field_name} is {value}; it must be finite and {bound}")


def check_rounds(name: str, rounds_at: tuple[int, ...]) -> None:
    """A UserError for rounds of refinement that are not rising iterations."""
    if any(at < 1 for at in rounds_at) or list(rounds_at) != sorted(set(rounds_at)):
        raise UserError(f"{name}.rounds_at is {rounds_at}; give rising iterations, each at least 1")


@dataclass(kw_only=True, slots=True)
class DensifyConfig:
    """Where Gaussians are added and removed during the fit (A.1: "densify and prune every 50 iterations")."""

    method: Literal["paper", "mcmc"] = "paper"
    """"paper" clones, splits and prunes by gradient (Kerbl et al. 2023); "mcmc" moves faint Gaussians to opaque ones,
    adds by opacity and moves all by noise (Kheradmand et al. 2024)."""
    every: int = 50
    """Iterations between two rounds, >= 1 (A.1: 50)."""
    until: float = 0.75
    """Share of the fit's iterations after which Gaussians are only pruned, in [0, 1]."""
    max_gaussians: int = 15_000
    """Growth stops here, >= 1; it bounds seconds and bytes."""
    grow_share: float = 0.15
    """Largest share of the Gaussians cloned or split in one round, in [0, 1]."""
    grow_gradient: float = 0.0
    """Least mean image-plane gradient of a Gaussian that grows, per half image width, >= 0."""
    split_scale: float = 0.02
    """Gaussians whose longest axis exceeds this are split, others cloned; scene units, > 0."""
    prune_opacity: float = 0.01
    """Gaussians fainter than this are removed, in [0, 1)."""
    prune_scale: float = 0.4
    """Gaussians longer than this are removed; scene units (the object's radius is 1), > 0."""
    prune_hidden: bool = True
    """Remove Gaussians that no view saw since the last round: a hidden inside costs time and shows nothing."""
    prune_weight: float = 0.01
    """Remove Gaussians whose blending weight has reached this in no pixel of any view since the last round, in [0, 1);
    they hang where no view needs them and cost time. 0: none. Not on a GPU, where gsplat does not tell weights."""
    noise: float = 4e4
    """"mcmc": the wandering's step as a multiple of the positions' learning rate and a Gaussian's covariance, >= 0."""
    opacity_cost: float = 0.01
    """"mcmc": weight of the mean opacity in the loss, >= 0; what is not needed fades and is moved."""
    scale_cost: float = 0.01
    """"mcmc": weight of the mean standard deviation (scene units) in the loss, >= 0."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.max_gaussians < 1:
            raise UserError(f"densify.every is {self.every}, max_gaussians {self.max_gaussians}; both must be >= 1")
        shares = {"until": self.until, "grow_share": self.grow_share, "prune_opacity": self.prune_opacity,
                  "prune_weight": self.prune_weight}  # fmt: skip
        wrong = {name: value for name, value in shares.items() if not 0 <= value <= 1}
        if wrong:
            raise UserError(f"densify: {wrong} must lie in [0, 1]")
        check("densify", self, above=("split_scale", "prune_scale"),
               least=("grow_gradient", "noise", "opacity_cost", "scale_cost"))  # fmt: skip
        if self.prune_opacity == 1:
            raise UserError("densify.prune_opacity is 1, which removes every Gaussian; it must lie in [0, 1)")
        if self.method not in ("paper", "mcmc"):
            raise UserError(f"densify.method is {self.method!r}; available: paper, mcmc")


@dataclass(kw_only=True, slots=True)
class LearningRates:
    """Adam's step sizes at the start, chosen for 1,200 iterations; all > 0."""

    means: float = 2e-3
    """Positions, in scene units."""
    scales: float = 1.5e-2
    """Logarithms of the axes."""
    quats: float = 5e-3
    """Rotations."""
    opacities: float = 5e-2
    """Logits of the opacities."""
    sh0: float = 2e-2
    """Colours."""
    shN: float = 2e-3
    """View-dependent colours."""
    final: float = 0.1
    """All rates fall exponentially to this share at the last iteration, in (0, 1]."""

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in asdict(self).items() if not 0 < value < float("inf")}
        if wrong or self.final > 1:
            raise UserError(f"learning rates must be positive and finite, final <= 1; got {wrong or self.final}")


@dataclass(kw_only=True, slots=True)
class PoseConfig:
    """Cameras and exposure that are optimised along with the Gaussians, since generated views miss their places."""

    elevation: bool = False
    """Correct the turntable's one elevation."""
    views: bool = False
    """Correct every view's azimuth, elevation and shift in the image."""
    exposure: bool = False
    """Correct every view's brightness by a gain for each colour."""
    trial_iterations: int = 250
    """Length of the two trial fits, with and without correction, at a quarter of the pixels; it is kept only if it
    lowers the loss. >= 1."""
    rate: float = 2e-3
    """Adam's step size of angles (radians) and shifts (in distances to the origin), > 0."""
    limit_degrees: float = 15.0
    """The elevation moves no farther than this from the estimate, and the views a quarter of it, in (0, 45]."""

    def __post_init__(self) -> None:
        if self.trial_iterations < 1 or not 0 < self.rate < float("inf"):
            raise UserError(f"pose.trial_iterations is {self.trial_iterations}, rate {self.rate}; give >= 1 and > 0")
        if not 0 < self.limit_degrees <= 45:
            raise UserError(f"pose.limit_degrees is {self.limit_degrees}; it must lie in (0, 45]")

    @property
    def any(self) -> bool:
        """Whether anything is optimised."""
        return self.elevation or self.views or self.exposure


@dataclass(kw_only=True, slots=True)
class FitConfig:
    """Gaussians to frames (3.3, A.1)."""

    iterations: int = 1200
    """Optimiser steps in all, >= 1 (A.1: 1200)."""
    init: Literal["ball", "hull"] = "ball"
    """Where Gaussians start: in a ball about the centre (A.1), or in the visual hull of the masks with the colours seen
    there, which no part of the object has to grow out of."""
    num_points: int = 5000
    """Gaussians at the start, >= 1 (A.1: 5000)."""
    init_radius: float = 0.5
    """Radius of the ball, in (0, 1]; the object's is 1."""
    sh_degree: int = 0
    """Spherical harmonics degree of the colours, 0 to 3; 0 is one colour from all sides."""
    views: int = 1
    """Views an iteration, >= 1."""
    coarse_iterations: int = 0
    """Iterations at half the resolution before the full one, >= 0; a third of all at most."""
    coarse_views: int = 1
    """Views an iteration during those, >= 1."""
    robust: float = 0.0
    """Views whose loss lies more than this many deviations (1.48 median absolute ones) above the median view count
    less, so that one bad frame does not smear the asset; 0 counts all alike."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; "auto" is the GPU where there is one."""
    window: bool = True
    """On a CPU, render and compare only the part of the frames that holds the object in any view, and a margin."""
    packed: bool = False
    """On a GPU, hold only what a view sees: less memory, a little slower. The CPU engine always does."""
    loss: LossConfig = field(default_factory=LossConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    rates: LearningRates = field(default_factory=LearningRates)
    pose: PoseConfig = field(default_factory=PoseConfig)

    def __post_init__(self) -> None:
        for name in ("iterations", "num_points", "views", "coarse_views"):
            if getattr(self, name) < 1:
                raise UserError(f"fit.{name} is {getattr(self, name)}; it must be at least 1")
        if self.init not in ("ball", "hull"):
            raise UserError(f"fit.init is {self.init!r}; available: ball, hull")
        if not 0 <= self.sh_degree <= 3:
            raise UserError(f"fit.sh_degree is {self.sh_degree}; it must lie in 0..3")
        check("fit", self, above=("init_radius",), least=("coarse_iterations", "robust"))
        if self.init_radius > 1:
            raise UserError(f"fit.init_radius is {self.init_radius}; it must lie in (0, 1], the object's radius")


@dataclass(kw_only=True, slots=True)
class RefineConfig:
    """Fit and re-denoise in turns (3.4, A.1)."""

    rounds_at: tuple[int, ...] = (500, 1000)
    """Fit iterations after which the targets are re-denoised, rising; empty for no refinement (A.1: 500 and 1000)."""
    mix: float = 1.0
    """Share of the re-denoised frames in the new targets, in (0, 1]; the rest is the targets before. 1 is the
    paper's. A weak generator's errors differ from round to round, so that 0.5 averages some of them away."""

    def __post_init__(self) -> None:
        if not 0 < self.mix <= 1:
            raise UserError(f"refine.mix is {self.mix}; it must lie in (0, 1]: leave refine.rounds_at empty for none")
        check_rounds("refine", self.rounds_at)

    def within(self, iterations: int) -> tuple[int, ...]:
        """The rounds of a fit of so many iterations: those before its end."""
        return tuple(at for at in self.rounds_at if at < iterations)


@dataclass(kw_only=True, slots=True)
class YieldConfig:
    """Turntables that no fit can make an asset of are found before the fit (`recon.yield_gate`)."""

    enabled: bool = False
    """Judge every turntable by a short fit: `yield_score` and `yield_reasons` in its row."""
    retries: int = 0
    """Turntables generated anew, with other seeds, while the score is over the threshold; the best one is kept.
    Needs `enabled`, in [0, 10]."""
    threshold: float = 0.5
    """Probability of an unusable asset over which a turntable is tried again, in (0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= 10 or not 0 < self.threshold < 1:
            raise UserError(f"yields.retries is {self.retries}, threshold {self.threshold}; give 0..10 and (0, 1)")
        if self.retries and not self.enabled:
            raise UserError(f"yields.retries is {self.retries} but nothing is judged; set yields.enabled")


@dataclass(kw_only=True, slots=True)
class QualityConfig:
    """Finished assets are judged, and bad ones kept apart (`recon.quality`)."""

    enabled: bool = True
    """Measure every asset: `usable` and `quality_reasons` in its row."""
    min: float = 0.0
    """The least `usable` of an asset, in [0, 1); one below is a dead letter `Rejected`, its files lie in `rejected`."""
    retries: int = 0
    """How often a rejected prompt is made again, each time with another seed, in [0, 10]."""

    def __post_init__(self) -> None:
        if not 0 <= self.min < 1 or not 0 <= self.retries <= 10:
            raise UserError(f"quality.min is {self.min}, retries {self.retries}; give [0, 1) and 0..10")
        if (self.min and not self.enabled) or (self.retries and not self.min):
            raise UserError(
                f"quality.min is {self.min} and retries {self.retries}: retries need a quality.min above 0, and that "
                "needs quality.enabled"
            )


@dataclass(kw_only=True, slots=True)
class MeshConfig:
    """Gaussians to a triangle mesh (A.7)."""

    enabled: bool = False
    """Write a `mesh.glb` beside every asset."""
    resolution: int = 160
    """Grid samples along the longest side, in [16, 512]."""
    density: float = 0.25
    """The surface lies where the summed opacity of the Gaussians reaches this, > 0."""
    faces: int = 20_000
    """Triangles after decimation, about, >= 100."""
    texture: int = 1024
    """Side of the baked texture, in [16, 8192]; 0: colours at the vertices instead."""
    optimise: bool = False
    """Optimise the mesh on the frames by the losses of the fit (A.7): signed distances and offsets of a tetrahedral
    grid that starts from the Gaussians."""
    iterations: int = 300
    """Steps of that optimisation, >= 1; one view each."""
    rounds_at: tuple[int, ...] = ()
    """Steps of it after which the frames are re-denoised from the mesh's own pictures (3.4), rising."""
    lods: int = 0
    """Coarser levels beside the mesh, each of a quarter of the triangles and half the texture, in [0, 6]; they are in
    the same `mesh.glb` (MSFT_lod)."""

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 512:
            raise UserError(f"mesh.resolution is {self.resolution}; it must lie in [16, 512]")
        if self.texture and not 16 <= self.texture <= 8192:
            raise UserError(f"mesh.texture is {self.texture}; it must lie in [16, 8192], or be 0 for vertex colours")
        if self.iterations < 1 or not 0 <= self.lods <= 6:
            raise UserError(f"mesh.iterations is {self.iterations}, mesh.lods {self.lods}; give >= 1 and 0..6")
        check_rounds("mesh", self.rounds_at)
        if self.optimise and not self.enabled:
            raise UserError("mesh.optimise is set but no mesh is made; set mesh.enabled too")
        if self.rounds_at and not self.optimise:
            raise UserError(f"mesh.rounds_at is {self.rounds_at} but the mesh is not optimised; set mesh.optimise too")
        if not 0 < self.density < float("inf") or self.faces < 100:
            raise UserError(f"mesh.density is {self.density}, mesh.faces {self.faces}; give > 0 and >= 100")
