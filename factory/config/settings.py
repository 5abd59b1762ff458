"""Compose everything that a user can set about the line: `FactoryConfig`, and `preset` of its defaults.

Order of precedence: preset, then a YAML file, then flags. The resolved settings are saved beside every
output; their fingerprint leaves out what changes no result, such as `line`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from eval.config import ClipConfig
from factory.line.cost import CostConfig
from factory.line.pool_flags import Pools
from factory.line.settings import LineConfig
from factory.storage.store import StorageConfig
from model.config import I2VGEN_XL, SDXL, ImageConfig, VideoConfig
from recon.config import DensifyConfig, FitConfig, MeshConfig, OrbitConfig, QualityConfig, RefineConfig, YieldConfig
from recon.loss_weights import LossConfig
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.ledger.run_identity import RunSettings

PRESETS = ("pocket", "paper", "sv3d")
Preset = Literal["pocket", "paper", "sv3d"]
DEFAULT_CHAIN = "image,video,views,reconstruct,score,commit"
MASKERS = ("pocket", "u2netp", "isnet")
WITHOUT_EFFECT = ("line", "storage", "cost", "weights")
"""Settings that change no result, and that a run may change half-way."""


@dataclass(kw_only=True, slots=True)
class ViewsConfig:
    """What is found out about the generated frames before reconstruction."""

    masks: str = "pocket"
    """Who cuts the object out of frames without alpha: 'pocket' (embedded, for frames on white), 'u2netp' (embedded,
    any ground), 'isnet' (isnet-general-use.onnx in the folder U2NET_HOME, ~/.u2net by default), or an .onnx file."""
    elevation: float | None = None
    """Elevation of every turntable in radians, in (-pi/2, pi/2); None asks the elevation estimator (A.1)."""
    estimator: str = "pocket"
    """The elevation estimator: 'pocket' (embedded), or a folder that `im3d finetune --target elevation` wrote."""
    coherence: bool = True
    """Correct the estimate until the outlines of the frames agree; False keeps A.1's estimate as it is."""

    def __post_init__(self) -> None:
        if self.masks not in MASKERS and not self.masks.endswith(".onnx"):
            raise UserError(f"views.masks is {self.masks!r}; give {', '.join(MASKERS)} or an .onnx file")
        if self.elevation is not None and not -1.57 < self.elevation < 1.57:
            raise UserError(f"views.elevation is {self.elevation}; it must lie in (-1.57, 1.57) radians")


@dataclass(kw_only=True, slots=True)
class FilesConfig:
    """What is written for each asset."""

    turntable_frames: int = 48
    """Frames of the re-rendered turntable, a multiple of the number of views."""
    turntable_fps: int = 16
    """Frames a second of the re-rendered turntable."""

    def __post_init__(self) -> None:
        if self.turntable_frames < 1 or self.turntable_fps < 1:
            raise UserError("files.turntable_frames and files.turntable_fps must be at least 1")


@dataclass(kw_only=True, slots=True)
class FactoryConfig:
    """The whole line, stage by stage."""

    chain: str = DEFAULT_CHAIN
    """The stages, in order: built-in ones by name, your own as package.module:Class."""
    image: ImageConfig = field(default_factory=ImageConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    orbit: OrbitConfig = field(default_factory=OrbitConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    yields: YieldConfig = field(default_factory=YieldConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    files: FilesConfig = field(default_factory=FilesConfig)
    line: LineConfig = field(default_factory=LineConfig)
    weights: str | None = None
    """Folder, local or s3://, that `im3d weights pull` filled: networks of its catalogue are taken from it."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    cost: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self) -> None:
        late = self.late_rounds()
        if late and self.refine.rounds_at != RefineConfig().rounds_at:
            raise UserError(
                f"refine.rounds_at has {', '.join(map(str, late))}, but the fit ends after fit.iterations = "
                f"{self.fit.iterations}; give rounds before that, more iterations, or no rounds"
            )

    def late_rounds(self) -> tuple[int, ...]:
        """Rounds of refinement that a shorter fit than the default's never comes to."""
        return self.refine.rounds_at[len(self.refine.within(self.fit.iterations)) :]


def preset(name: Preset) -> FactoryConfig:
    """The settings of a preset.

    Raises:
        UserError: for an unknown name.
    """
    if name == "pocket":
        return FactoryConfig(
            image=ImageConfig(steps=12, guidance_scale=3.0, size=128),
            video=VideoConfig(steps=2, guidance_scale=1.0, refine_strength=0.3),
            fit=FitConfig(init="hull", coarse_iterations=400),
            refine=RefineConfig(mix=0.5),
        )
    if name == "paper":
        return _at_512()
    if name == "sv3d":
        paper = _at_512()
        return replace(
            paper,
            image=replace(paper.image, size=576),  # what SV3D was trained at; frames are made at it in any case
            video=VideoConfig(model="sv3d-u", device="cuda"),
            orbit=OrbitConfig(fov_degrees=33.8, distance=3.831),  # the lens that it knows, the object framed as here
        )
    raise UserError(f"preset {name!r} not found. Available: {', '.join(PRESETS)}")


ONE_OBJECT = (
    "{prompt}, a single object, whole and centered with a margin on all sides, isolated on a plain white background, "
    "even studio light, no shadow"
)
"""Around a prompt for generators of scenes: masks cut one object out, and what is cut off is missing for good."""


def _at_512() -> FactoryConfig:
    """The paper's networks and numbers. Its turntable model is not public: fine-tune I2VGen-XL, see docs/finetuning.md.

    Steps of sampling are the defaults, 20 and twice 10 (A.1). Guidance and strength of the video model are its family's
    own: I2VGen-XL's 3 is far below the released 9, which saturates colours that a fit then averages; 0.5 is where its
    noise weighs as much as the signal.
    """
    growth = DensifyConfig(max_gaussians=60_000)  # what 18 rounds of 15% make of 5,000: at 512 px nothing is held back
    return FactoryConfig(
        image=ImageConfig(model=SDXL, template=ONE_OBJECT, size=512, device="cuda"),  # guidance 5: SDXL's own default
        video=VideoConfig(model=I2VGEN_XL, device="cuda"),
        views=ViewsConfig(masks="isnet", estimator="elevation-dino"),
        fit=FitConfig(loss=LossConfig(perceptual="vgg"), densify=growth),
        clip=ClipConfig(model="ViT-L-14-quickgelu", beside=("ViT-B-32-quickgelu",)),
        line=LineConfig(pools=Pools(all={"actors": 1, "gpus": 0.16, "cpus": 1.0})),  # six stages share a GPU
    )


def fingerprint(config: FactoryConfig) -> str:
    """16 hexadecimal digits over every setting that changes results; the default chain is as if it were none."""
    without = (*WITHOUT_EFFECT, *(("chain",) if config.chain == DEFAULT_CHAIN else ()))
    settings = {name: value for name, value in asdict(config).items() if name not in without}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def plain(config: FactoryConfig) -> dict[str, Any]:
    """The settings as nested values that JSON and YAML know."""
    return json.loads(json.dumps(asdict(config)))


def run_settings(config: FactoryConfig) -> RunSettings:
    """The settings as the ledger compares and keeps them."""
    from factory.ledger.run_identity import RunSettings

    return RunSettings(
        values=plain(config),
        defaults=plain(FactoryConfig()),
        without_effect=WITHOUT_EFFECT,
        fingerprint=fingerprint(config),
    )
