"""Everything a user can set about the line, composed from the settings that each package owns.

Order of precedence: preset, then a YAML file, then flags. The resolved settings are saved beside every
output; their fingerprint leaves out what changes no result, such as `line`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eval.config import ClipConfig
from factory.cost import CostConfig
from factory.store import StorageConfig
from model.config import I2VGEN_XL, SDXL, ImageConfig, VideoConfig
from recon.config import FitConfig, MeshConfig, OrbitConfig, RefineConfig, YieldConfig

PRESETS = ("pocket", "paper")
Preset = Literal["pocket", "paper"]
WITHOUT_EFFECT = ("line", "storage", "cost")
"""Settings that change no result, and that a run may change half-way."""


@dataclass(kw_only=True, slots=True)
class ViewsConfig:
    """What is found out about the generated frames before reconstruction."""

    masks: Literal["pocket", "rembg"] = "pocket"
    """Who cuts the object out of frames without alpha: the embedded network, or IS-Net through rembg."""
    elevation: float | None = None
    """Elevation of every turntable in radians, in (-pi/2, pi/2); None asks the elevation estimator (A.1)."""
    estimator: str = "pocket"
    """The elevation estimator: 'pocket' (embedded), or a folder that `im3d finetune --target elevation` wrote."""
    coherence: bool = True
    """Correct the estimate until the outlines of the frames agree; False keeps A.1's estimate as it is."""

    def __post_init__(self) -> None:
        if self.elevation is not None and not -1.57 < self.elevation < 1.57:
            raise ValueError(f"views.elevation is {self.elevation}; it must lie in (-1.57, 1.57) radians")


@dataclass(kw_only=True, slots=True)
class FilesConfig:
    """What is written for each asset."""

    turntable_frames: int = 48
    """Frames of the re-rendered turntable, a multiple of the number of views."""
    turntable_fps: int = 16
    """Frames a second of the re-rendered turntable."""

    def __post_init__(self) -> None:
        if self.turntable_frames < 1 or self.turntable_fps < 1:
            raise ValueError("files.turntable_frames and files.turntable_fps must be at least 1")


@dataclass(kw_only=True, slots=True)
class Pool:
    """The actors of one stage."""

    actors: int = 1
    """How many at least, >= 1; each loads its models once."""
    max_actors: int | None = None
    """How many at most, while rows wait; None: on a cluster the reconstructing pool takes what the others leave."""
    cpus: float = 0.25
    """Logical CPUs that each reserves."""
    gpus: float = 0.0
    """GPUs that each reserves; a fraction lets stages share one."""
    threads: int = 1
    """Threads that its mathematics may use, >= 1."""
    batch: int = 1
    """Rows at a time, >= 1."""
    in_flight: int = 2
    """Blocks that are on their way to an actor or in it, >= 1; two keep it busy."""
    labels: tuple[str, ...] = ()
    """Nodes it may use, by Ray's labels, as ray.io/accelerator-type=H100."""
    row_timeout: float = 3600.0
    """Seconds that a row may take, > 0; a batch may take as many times longer as it has rows."""
    max_rows: int | None = None
    """A process is replaced after so many rows, >= 1."""
    max_growth_gb: float | None = None
    """A process is replaced when it has grown by so many GiB since its models were loaded, > 0; pages of Ray's object
    store do not count."""

    def __post_init__(self) -> None:
        if min(self.actors, self.threads, self.batch, self.in_flight) < 1 or self.cpus < 0 or self.gpus < 0:
            raise ValueError(
                "a pool needs actors, threads, batch and in_flight of at least 1, cpus and gpus of at least 0"
            )
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors is {self.max_actors}; it must be at least actors = {self.actors}")
        given = [value for value in (self.row_timeout, self.max_growth_gb, self.max_rows) if value is not None]
        if min(given) <= 0:
            raise ValueError("row_timeout, max_rows and max_growth_gb must be above 0")
        if bad := [label for label in self.labels if not all(label.partition("="))]:
            raise ValueError(f"label {bad[0]!r} is none; write key=value, as ray.io/accelerator-type=H100")


@dataclass(kw_only=True, slots=True)
class LineConfig:
    """Where and how the stages run; never changes what they make."""

    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""
    autoscaling: bool = False
    """The cluster grows on demand: what it lacks now is waited for instead of refused."""
    rows_per_block: int = 1
    """Rows that travel, and are retried, together, in [1, 10000]; 1 to 8 while they carry videos."""
    max_failed_share: float = 0.5
    """Give up once more than this share of at least 20 rows has failed, in (0, 1]; a broken model is not hidden."""
    image: Pool = field(default_factory=Pool)
    video: Pool = field(default_factory=Pool)
    views: Pool = field(default_factory=Pool)
    reconstruct: Pool = field(default_factory=lambda: Pool(actors=max(1, os.cpu_count() or 1)))
    score: Pool = field(default_factory=Pool)
    commit: Pool = field(default_factory=Pool)

    def __post_init__(self) -> None:
        if not 1 <= self.rows_per_block <= 10_000:
            raise ValueError(f"line.rows_per_block is {self.rows_per_block}; it must lie in [1, 10000]")
        if not 0 < self.max_failed_share <= 1:
            raise ValueError(f"line.max_failed_share is {self.max_failed_share}; it must lie in (0, 1]")


@dataclass(kw_only=True, slots=True)
class FactoryConfig:
    """The whole line, stage by stage."""

    image: ImageConfig = field(default_factory=ImageConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    orbit: OrbitConfig = field(default_factory=OrbitConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    yields: YieldConfig = field(default_factory=YieldConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    files: FilesConfig = field(default_factory=FilesConfig)
    line: LineConfig = field(default_factory=LineConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    cost: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self) -> None:
        late = self.late_rounds()
        if late and self.refine.rounds_at != RefineConfig().rounds_at:
            raise ValueError(
                f"refine.rounds_at has {', '.join(map(str, late))}, but the fit ends after fit.iterations = "
                f"{self.fit.iterations}; give rounds before that, more iterations, or no rounds"
            )

    def late_rounds(self) -> tuple[int, ...]:
        """Rounds of refinement that a shorter fit than the default's never comes to."""
        return self.refine.rounds_at[len(self.refine.within(self.fit.iterations)) :]


def preset(name: Preset) -> FactoryConfig:
    """The settings of a preset.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "pocket":
        return FactoryConfig(
            image=ImageConfig(steps=20, guidance_scale=3.0, size=128),
            video=VideoConfig(steps=2, guidance_scale=1.0, refine_strength=0.3),
            fit=FitConfig(init="hull"),
            refine=RefineConfig(mix=0.5),
        )
    if name == "paper":
        stages = ("image", "video", "views", "reconstruct", "score")
        pools: dict[str, Any] = {stage: Pool(gpus=0.2, cpus=1.0) for stage in stages}
        return FactoryConfig(
            image=ImageConfig(model=SDXL, size=512, device="cuda"),
            video=VideoConfig(model=I2VGEN_XL, device="cuda"),
            views=ViewsConfig(masks="rembg"),
            line=LineConfig(**pools),
        )
    raise ValueError(f"preset {name!r} not found. Available: {', '.join(PRESETS)}")


def fingerprint(config: FactoryConfig) -> str:
    """16 hexadecimal digits over every setting that changes results."""
    settings = {name: value for name, value in asdict(config).items() if name not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def difference(old: FactoryConfig, new: FactoryConfig) -> list[str]:
    """One line for each setting that differs and changes results, as "fit.iterations: 1200 -> 600"."""
    before, after = (dict(flat(asdict(config))) for config in (old, new))
    names = [name for name in before | after if name.split(".")[0] not in WITHOUT_EFFECT]
    return [f"{n}: {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)]


def flat(values: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs ("fit.iterations", 1200), below the prefix `where`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


@dataclass(kw_only=True, slots=True)
class RenderConfig:
    """Turntables of meshes (3.1): uniform azimuths, one random elevation each."""

    size: int = 128
    """Side of the frames in pixels, in [16, 2048]."""
    turntables: int = 1
    """Turntables of each asset, each with its own elevation, >= 1."""
    max_elevation_degrees: float = 45.0
    """Elevations are uniform in [0, this], in [0, 89]."""
    random_start: bool = False
    """Start at a random azimuth instead of the front."""
    stretch: float = 1.0
    """Make each turntable's mesh longer or shorter along each of its axes, by a random factor of at most this and
    at least its inverse, in [1, 4]: more shapes to train on than there are assets."""
    bend: float = 0.0
    """Let each turntable's mesh lean, taper and twist at random, the more the higher, in [0, 1]."""
    companions: float = 0.0
    """Share of the turntables in which another asset of the table stands beside, in [0, 1]; captions name the first."""
    assemblies: float = 0.0
    """Share of the turntables that show an object put together at random from the asset, another of the table and
    simple solids, in [0, 1]; its caption is "a thing"."""
    seed: int = 0
    """Of elevations, starts, shapes, companions and assemblies; all but the other asset depend on the turntable's own
    id alone."""
    num_views: int = 16
    """Views of a turntable, >= 1; field of view and distance are those of `OrbitConfig`."""
    pool: Pool = field(default_factory=lambda: Pool(actors=max(1, os.cpu_count() or 1), batch=4))
    """The rendering actors."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}; it must lie in [16, 2048] pixels")
        if self.turntables < 1 or self.num_views < 1:
            raise ValueError(f"turntables is {self.turntables}, num_views {self.num_views}; both must be at least 1")
        if not 0 <= self.max_elevation_degrees <= 89:
            raise ValueError(f"max_elevation_degrees is {self.max_elevation_degrees}; it must lie in [0, 89]")
        if not 1 <= self.stretch <= 4:
            raise ValueError(f"stretch is {self.stretch}; it must lie in [1, 4]")
        for name in ("bend", "companions", "assemblies"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")

    def identity(self) -> dict[str, Any]:
        """The settings that every turntable depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("pool", "address")}
