"""Hold a finished run as columns, one entry an asset, for its report: `ScoredRun`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.page import address
from eval.score_columns import measure_of
from recon.user_error import UserError

STAGE_OF_TABLE = "prompts"
"""The stage of dead letters that are no prompts at all: empty, double, unreadable."""
SHEET_VIEWS = 4
"""Views of an asset that a sheet shows beside its reference image."""
COMPARABLE = ("clip.", "orbit.", "image.size", "files.turntable_frames")
"""Settings that the line's own scores depend on beside the asset."""


@dataclass(kw_only=True, slots=True)
class DeadLetter:
    """One dead letter."""

    prompt_id: str
    prompt: str
    stage: str
    kind: str
    message: str
    place: str = ""
    """File and line that raised it; "" where none did, as in a process that was killed."""


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """One evaluation of a run by `im3d evaluate`."""

    name: str
    """Its folder, <protocol>-<prompts>."""
    statement: dict[str, Any]
    """`protocol.json`: everything that its scores depend on."""
    scored: int
    """Assets with scores."""
    dead: list[DeadLetter] = field(default_factory=list)
    """Assets that it could not score."""

    @property
    def protocol(self) -> str:
        """What columns of its scores have after the @."""
        return self.name[:8]


@dataclass(kw_only=True, slots=True)
class ScoredRun:
    """N assets and the dead letters of one run.

    Columns of numbers are float64 [N], nan where an asset has none.
    """

    label: str
    base: str | None
    """Address of the run's folder from the page, "" or ending in a slash; None: it cannot be reached from there."""
    prompt_ids: list[str]
    prompts: list[str]
    folders: list[str]
    """Of each asset's files, relative to the run's folder."""
    scores: dict[str, NDArray[np.float64]]
    """By column, as `eval.score_columns` knows it; after an @ the protocol of the evaluation that judged."""
    numbers: dict[str, NDArray[np.float64]]
    """seed, seconds, forwards, cost_dollars, gpu_seconds, num_gaussians, yield_score, usable."""
    calls: dict[str, NDArray[np.float64]]
    """Network evaluations: `steps_*` of the sampler and `forwards_*`, by part of the line."""
    stage_seconds: dict[str, NDArray[np.float64]]
    dead: list[DeadLetter] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    """Video and model of each asset, or "", of a folder that is no output of `im3d generate`; else empty."""
    viewers: set[str] = field(default_factory=set)
    """Ids of the assets that have been exported as a page with a viewer."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The run's settings as `fit.iterations: 1200`."""
    num_views: int = 16
    """Pictures in `views/` of an asset."""
    last_run: str = ""
    """Figures of the last run into the folder, as HTML."""

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """[N] assets whose turntable the yield gate took for unusable."""
        return self.numbers["yield_score"] > float(self.settings.get("yields.threshold", 0.5))

    def score(self, column: str | None) -> str | None:
        """The column to rank by: the given one, else a text score of the re-renders, else any; None without scores.

        Raises:
            UserError: for a column that the run does not have.
        """
        if column is not None and column not in self.scores:
            raise UserError(f"score {column!r} not found. Available: {', '.join(self.scores) or 'none'}")
        return (
            column
            or next((name for name in self.scores if name.startswith("clip_text_renders")), None)
            or next(iter(self.scores), None)
        )

    def pictures(self, row: int) -> list[str]:
        """Addresses of an asset's reference image and of SHEET_VIEWS of its views; none where unreachable."""
        if self.base is None or self.files:
            return []
        views = [f"views/{k * self.num_views // SHEET_VIEWS:02d}.png" for k in range(SHEET_VIEWS)]
        return [self.base + address(self.folders[row], name) for name in ("image.png", *views)]

    def video(self, row: int) -> str | None:
        """Address of an asset's video in a folder that is no output of `im3d generate`; None where there is none."""
        name = self.files[row][0] if self.files else ""
        return self.base + address(name) if name and self.base is not None else None

    def ranked(self, column: str | None) -> list[int]:
        """Assets from best to worst by a score, those without it last, equals by prompt id."""
        if column is None:
            return sorted(range(len(self)), key=self.prompt_ids.__getitem__)
        values = np.nan_to_num(measure_of(column).sign * self.scores[column], nan=-np.inf)
        return sorted(range(len(self)), key=lambda row: (-values[row], self.prompt_ids[row]))


def why_not_comparable(a: ScoredRun, b: ScoredRun) -> list[str]:
    """What differs between two runs of that which their own scores depend on, as "clip.model: pocket and big"."""
    names = {name for run in (a, b) for name in run.settings if name.startswith(COMPARABLE)}
    pairs = {name: (a.settings.get(name), b.settings.get(name)) for name in sorted(names)}
    return [f"{name}: {mine} and {theirs}" for name, (mine, theirs) in pairs.items() if mine != theirs]
