"""Logistic regression over measures."""

import numpy as np
import pytest

from recon.risk import RiskModel


def rows(count: int, unknown: float = 0.0) -> tuple[list[dict[str, float | None]], list[bool]]:
    random = np.random.default_rng(count)
    failed = [bool(k % 2) for k in range(count)]
    return [
        {"a": float(random.uniform(1, 2) * (3 if bad else 1)), "b": None if random.random() < unknown else 1.0}
        for bad in failed
    ], failed


def test_what_is_not_known_adds_nothing() -> None:
    model = RiskModel.fit(*rows(60, unknown=0.5), ["a", "b"])
    assert model.probability({"a": 5.0, "b": None}) == model.probability({"a": 5.0})
    assert model.probability({"a": 5.0}) > 0.9 > 0.1 > model.probability({"a": 1.2})
    assert model.reasons({"a": 5.0}, {"a": "too much", "b": "other"}) == ["too much"]
    assert model.reasons({"a": 1.2}, {"a": "too much", "b": "other"}) == []


def test_a_model_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="2 of 2 are unusable"):
        RiskModel.fit([{"a": 1.0}, {"a": 2.0}], [True, True], ["a"])
