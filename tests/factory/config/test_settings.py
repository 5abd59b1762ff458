"""Settings: presets, YAML before flags, errors that name the near miss, fingerprints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from factory.config.settings import FactoryConfig, fingerprint, preset
from factory.config.yaml import from_yaml, read_yaml, to_yaml
from factory.line.settings import LineConfig


@pytest.mark.parametrize("name", ["pocket", "paper"])
def test_yaml_round_trip_is_exact(name) -> None:
    config = preset(name)
    assert from_yaml(to_yaml(config), FactoryConfig(), "x") == config


def test_yaml_changes_only_what_it_names() -> None:
    config = from_yaml("fit: {iterations: 600}\nrefine: {rounds_at: [200]}\n", preset("pocket"), "x")
    assert (config.fit.iterations, config.refine.rounds_at) == (600, (200,))
    assert config.fit.num_points == preset("pocket").fit.num_points
    assert config.image == preset("pocket").image
    assert from_yaml("", preset("paper"), "x") == preset("paper")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: {iteration: 600}", r"c\.yaml: unknown setting fit\.iteration; did you mean fit\.iterations\?"),
        ("fitt: {iterations: 600}", r"unknown setting fitt; did you mean fit\?"),
        ("zebra: 1", r"unknown setting zebra; Available: chain, image, video"),
        ("fit: {iterations: many}", r"fit\.iterations"),
        ("fit: {iterations: 0}", r"fit\.iterations is 0; it must be at least 1"),
        ("fit: 3", r"fit must be a mapping"),
        ("- 1", r"the document must be a mapping"),
        ("fit: [unclosed", r"not YAML"),
        ("fit: {iterations: true}", r"fit\.iterations"),
    ],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_yaml(tmp_path / "c.yaml", preset("pocket"))


def test_rounds_after_the_end_of_the_fit() -> None:
    short = from_yaml("fit: {iterations: 600}", preset("pocket"), "x")
    assert (short.refine.within(600), short.late_rounds()) == ((500,), (1000,))
    assert preset("pocket").late_rounds() == ()
    with pytest.raises(ValueError, match=r"rounds_at has 300, but the fit ends after fit\.iterations = 300"):
        from_yaml("fit: {iterations: 300}\nrefine: {rounds_at: [100, 300]}", preset("pocket"), "x")


def test_yaml_cannot_run_code() -> None:
    with pytest.raises(ValueError, match="not YAML"):
        from_yaml("fit: !!python/object/apply:os.system [true]", FactoryConfig(), "x")


def test_fingerprint_follows_results_not_placement() -> None:
    config = FactoryConfig()
    placed = dataclasses.replace(config, line=LineConfig(rows_per_block=7))
    refit = from_yaml("fit: {iterations: 600}", config, "x")
    assert fingerprint(placed) == fingerprint(config) != fingerprint(refit)


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Available: pocket, paper"):
        preset("huge")  # type: ignore[arg-type]


def test_paper_preset_takes_the_papers_numbers() -> None:
    config = preset("paper")
    assert (config.fit.iterations, config.fit.num_points, config.refine.rounds_at) == (1200, 5000, (500, 1000))
    assert (config.image.size, config.orbit.num_views, config.video.refine_steps) == (512, 16, 10)
