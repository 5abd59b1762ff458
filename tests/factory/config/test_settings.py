"""Settings: presets, YAML before flags, errors that name the near miss, fingerprints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from factory.config.settings import FactoryConfig, fingerprint, plain, preset
from factory.config.yaml import from_yaml, read_yaml
from factory.line.settings import LineConfig
from jobs.generate import Generate
from jobs.settings import parse


@pytest.mark.parametrize("name", ["pocket", "paper", "sv3d"])
def test_yaml_round_trip_is_exact(name) -> None:
    config = preset(name)
    assert from_yaml(yaml.safe_dump(plain(config)), FactoryConfig(), "x") == config


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


def test_pools_are_merged_over_the_preset_and_survive_yaml_and_flags(tmp_path: Path) -> None:
    config = from_yaml("line: {pools: {video: {actors: 2, gpus: 1}}}", preset("paper"), "x")
    assert config.line.pools == {"all": preset("paper").line.pools["all"], "video": {"actors": 2, "gpus": 1.0}}
    assert read_yaml_of(config, tmp_path).line == config.line
    job = parse(Generate, ["--out", "o", "--preset", "paper", "--line.pools", "video=2x1gpu"])
    assert job.settings.line.pools == config.line.pools
    with pytest.raises(
        ValueError, match=r"x: unknown setting line\.pools\.video\.actor; did you mean line\.pools\.video\."
    ):
        from_yaml("line: {pools: {video: {actor: 2}}}", FactoryConfig(), "x")


def test_settings_of_runs_from_before_pools_were_named_by_stage_are_read() -> None:
    old = "line: {address: local, video: {actors: 2, max_actors: null, labels: []}, reconstruct: {actors: 3}}"
    assert from_yaml(old, FactoryConfig(), "x").line.pools == {
        "video": {"actors": 2, "max_actors": None, "labels": ()},
        "reconstruct": {"actors": 3},
    }


def read_yaml_of(config: FactoryConfig, folder: Path) -> FactoryConfig:
    (folder / "c.yaml").write_text(yaml.safe_dump(plain(config)))
    return read_yaml(folder / "c.yaml", FactoryConfig())
