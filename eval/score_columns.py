"""Name the columns of scores: `clip_column` and `rank_column` make a name, `measure_of` says what a column measures.

A new score is a `Measure` of `_KNOWN` here, in words, with its group and which way is better; what computes it writes
a column of that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

SIMILARITY, RANK, ANSWER, FIDELITY, CONSISTENCY = "similarity", "rank", "answer", "fidelity", "consistency"
GROUPS = {
    SIMILARITY: "CLIP similarity, 100 × cosine",
    RANK: "How many other prompts fit better than the own",
    ANSWER: "Does it show the prompt? Probability of yes",
    FIDELITY: "Fidelity: against the true object, on unseen views",
    CONSISTENCY: "Consistency: of the frames with each other and with the fit",
}
"""Groups of measures in their order, and the caption of each."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Measure:
    """One kind of score."""

    title: str
    group: str
    decimals: int = 2
    low: bool = False
    """Whether less is better."""

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.low else 1

    def text(self, value: float, sign: str = "") -> str:
        """A value as it is printed; `sign` "+" prints that of positive ones too."""
        return f"{value:{sign}.{self.decimals}f}"


_KINDS = {"text": "prompt", "image": "image prompt"}
_VIEWS = {"frames": "generated frames", "renders": "re-renders"}
VIEW_SETS = tuple(_VIEWS)
"""What is judged: the frames of the video model, and renders of the Gaussians."""
_PAIRED = {"lpips_vgg": "LPIPS VGG", "lpips_alex": "LPIPS AlexNet", "dists": "DISTS"}
_KNOWN = {
    **{
        f"{name}_renders_truth": Measure(title=title, group=FIDELITY, decimals=3, low=True)
        for name, title in _PAIRED.items()
    },
    **{
        f"{name}_renders_frames": Measure(
            title=f"re-renders against frames: {title}", group=CONSISTENCY, decimals=3, low=True
        )
        for name, title in _PAIRED.items()
    },
    "psnr_renders": Measure(title="PSNR, dB", group=FIDELITY),
    "ssim_renders": Measure(title="SSIM", group=FIDELITY, decimals=3),
    "ms_ssim_renders": Measure(title="MS-SSIM", group=FIDELITY, decimals=3),
    "lpips_pocket_renders": Measure(title="LPIPS, pocket network", group=FIDELITY, decimals=3, low=True),
    "mask_iou_renders": Measure(title="mask IoU", group=FIDELITY, decimals=3),
    "depth_error_renders": Measure(title="depth error, radii", group=FIDELITY, decimals=3, low=True),
    "chamfer": Measure(title="Chamfer distance, radii", group=FIDELITY, decimals=4, low=True),
    "f_score": Measure(title="F-score", group=FIDELITY, decimals=3),
    "residual_psnr": Measure(title="re-renders against frames: PSNR, dB", group=CONSISTENCY),
    "residual_lpips_pocket": Measure(
        title="re-renders against frames: LPIPS, pocket network", group=CONSISTENCY, decimals=3, low=True
    ),
    "feature_consistency": Measure(title="features of neighbouring frames: cosine", group=CONSISTENCY, decimals=3),
    "flow_residual": Measure(
        title="motion against the fit, share of the side", group=CONSISTENCY, decimals=4, low=True
    ),
    "yield_probability": Measure(
        title="yield gate: risk of an unusable turntable", group=CONSISTENCY, decimals=3, low=True
    ),
}


def clip_column(against: str, views: str, model: str) -> str:
    """Similarity of "frames" or "renders" with "text" or "image" by a CLIP model; with the suffix _views by view."""
    return f"clip_{against}_{views}_{model}"


def clip_columns(model: str) -> list[str]:
    """Every similarity by the CLIP model `model`."""
    return [clip_column(against, views, model) for views in VIEW_SETS for against in ("text", "image")]


def rank_column(views: str, model: str) -> str:
    """How many prompts fit "frames" or "renders" better than their own, by a CLIP model."""
    return f"rank_text_{views}_{model}"


def rank_columns(models: Sequence[str]) -> list[str]:
    """Every rank by these CLIP models."""
    return [rank_column(views, model) for model in models for views in VIEW_SETS]


def measure_of(column: str) -> Measure:
    """What a column of scores measures; after an @ it may name the protocol that judged.

    "clip_text_renders_pocket" is "re-renders to prompt, CLIP pocket".

    Raises:
        ValueError: for a column that is no score.
    """
    name, _, protocol = column.partition("@")
    judged = f" @{protocol}" if protocol else ""
    if name in _KNOWN:
        return replace(_KNOWN[name], title=_KNOWN[name].title + judged)
    model, _, views = name.removeprefix("vqa_").rpartition("_")
    if name.startswith("vqa_") and model and views in _VIEWS:
        return Measure(title=f"{_VIEWS[views]}, {model}{judged}", group=ANSWER, decimals=3)
    kind, *parts = name.split("_", 3)
    if len(parts) == 3 and parts[0] in _KINDS and parts[1] in _VIEWS and not name.endswith("_views"):
        against, views, model = parts
        if kind == "clip":
            title = f"{_VIEWS[views]} to {_KINDS[against]}, CLIP {model}{judged}"
            return Measure(title=title, group=SIMILARITY)
        if kind == "rank" and against == "text":
            return Measure(title=f"{_VIEWS[views]}, CLIP {model}{judged}", group=RANK, decimals=0, low=True)
    raise ValueError(f"column {column!r} is no score that im3d evaluate writes")


def is_measure(column: str) -> bool:
    """Whether a column is a score."""
    try:
        return bool(measure_of(column))
    except ValueError:
        return False
