"""Turn measures into the calibrated probability that something is unusable, and into reasons: `RiskModel`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-3
"""Added to a measure before its logarithm is taken."""
NARROWEST = 1e-3
"""Spread of the logarithms that a measure is taken to have at least; one that is never known has none."""
FARTHEST = 3.0
"""Standard deviations that a measure counts at most."""
SPEAKS = 0.5
"""Log odds from which on a measure is a reason."""


@dataclass(slots=True)
class RiskModel:
    """Logistic regression over the logarithms of measures >= 0, in the order of `names`.

    ``p = sigmoid(bias + sum_i weights_i clip((log(x_i + 1e-3) - means_i) / stds_i, -3, 3))``; what is not known adds
    nothing.
    """

    names: list[str]
    means: list[float]
    stds: list[float]
    weights: list[float]
    bias: float

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model that `save` wrote.

        Raises:
            ValueError: if there is none.
        """
        path = folder / "model.json"
        if not path.is_file():
            raise ValueError(f"no model of risks in {folder}: model.json is missing; "
                             "python -m benchmarks.yield_gate or benchmarks.quality_gate writes it")  # fmt: skip
        return cls(**json.loads(path.read_text()))

    @classmethod
    def fit(
        cls, rows: Sequence[Mapping[str, float | None]], failed: Sequence[bool], names: Sequence[str],
        ridge: float = 0.02,
    ) -> Self:  # fmt: skip
        """The model of measured rows, by Newton's method with a small ridge.

        Args:
            failed: which of them are unusable; both kinds must be there.

        Raises:
            ValueError: where all or none are.
        """
        if all(failed) or not any(failed):
            raise ValueError(f"{sum(failed)} of {len(failed)} are unusable; a model needs both kinds")
        values = np.log(np.array([[_number(row.get(name)) for name in names] for row in rows]) + LEAST)
        known = ~np.isnan(values)
        counts = known.sum(0).clip(1)
        means = np.nan_to_num(values).sum(0) / counts
        stds = np.maximum((np.square(np.nan_to_num(values - means)).sum(0) / counts) ** 0.5, NARROWEST)
        standard = _standard(values, means, stds)
        inputs = np.concatenate([standard, np.ones((len(rows), 1))], 1)
        penalty = ridge * len(rows) * np.diag([1.0] * len(names) + [0.0])
        weights, wanted = np.zeros(inputs.shape[1]), np.array(failed, float)
        for _ in range(50):
            chance = 1 / (1 + np.exp(-inputs @ weights))
            slope = inputs.T @ (chance - wanted) + penalty @ weights
            curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + penalty + 1e-9 * np.eye(len(weights))
            weights = weights - np.linalg.solve(curve, slope)
        rounded = [[round(float(x), 5) for x in part] for part in (means, stds, weights)]
        return cls(list(names), rounded[0], rounded[1], rounded[2][:-1], rounded[2][-1])

    def parts(self, measures: Mapping[str, float | None]) -> NDArray[np.float64]:
        """What each measure adds to the log odds."""
        values = np.log(np.array([_number(measures.get(name)) for name in self.names]) + LEAST)
        return _standard(values, np.array(self.means), np.array(self.stds)) * self.weights

    def probability(self, measures: Mapping[str, float | None]) -> float:
        """That it is unusable, in [0, 1]."""
        return float(1 / (1 + np.exp(-(self.parts(measures).sum() + self.bias))))

    def reasons(self, measures: Mapping[str, float | None], words: Mapping[str, str], count: int = 2) -> list[str]:
        """The `words` of at most `count` measures that speak most against it; none that speak for it."""
        parts = self.parts(measures)
        return [words[self.names[i]] for i in np.argsort(-parts)[:count] if parts[i] > SPEAKS]

    def save(self, folder: Path) -> None:
        """Write `model.json` to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def roc_auc(scores: NDArray, failed: NDArray[np.bool_]) -> float:
    """The chance that a failure scores higher than a success; ties count half."""
    bad, good = scores[failed], scores[~failed]
    return float(((bad[:, None] > good) + 0.5 * (bad[:, None] == good)).mean())


def calibration_error(scores: NDArray, failed: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance between predicted and observed share of failures over bins of the score."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(scores[which == b].mean() - failed[which == b].mean()) * (which == b).mean()
            for b in range(bins) if (which == b).any()]  # fmt: skip
    return float(sum(gaps))


def _standard(values: NDArray, means: NDArray, stds: NDArray) -> NDArray[np.float64]:
    """Logarithms in units of their spread, and 0 for what is not known: far outside nothing was calibrated."""
    return np.nan_to_num((values - means) / stds).clip(-FARTHEST, FARTHEST)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
