"""Settings and weights of an output folder: outcomes of two kinds are never mixed by accident."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

from factory.config.settings import FactoryConfig, fingerprint, preset, run_settings
from factory.config.yaml import read_yaml
from factory.ledger import run_identity
from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.stages.preflight import find_networks, weights_of
from factory.stages.survey import Need
from factory.storage.local import LocalStore
from jobs import generate
from jobs.generate import Generate

WEIGHTS = {"image": "sha256:1", "video": "sha256:2"}


def changed() -> FactoryConfig:
    config = preset("pocket")
    return dataclasses.replace(config, fit=dataclasses.replace(config.fit, iterations=600))


def test_difference_is_shown_and_refused(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    run_identity.write(store, run_settings(preset("pocket")), WEIGHTS)
    run_identity.check_unchanged(store, run_settings(preset("pocket")), WEIGHTS, 5)
    run_identity.check_unchanged(store, run_settings(changed()), WEIGHTS, 0)
    with pytest.raises(ValueError, match=r"5 outcomes .*fit\.iterations: 1200 -> 600.*--new-run.*--accept-changes"):
        run_identity.check_unchanged(store, run_settings(changed()), None, 5)
    with pytest.raises(ValueError, match="video weights: sha256:2 -> sha256:3"):
        run_identity.check_unchanged(store, run_settings(preset("pocket")), WEIGHTS | {"video": "sha256:3"}, 5)


def test_settings_of_the_line_may_change_and_every_kind_is_kept(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    config = preset("pocket")
    run_identity.write(store, run_settings(config), WEIGHTS)
    other = dataclasses.replace(config, line=dataclasses.replace(config.line, rows_per_block=9))
    run_identity.check_unchanged(store, run_settings(other), WEIGHTS, 5)
    run_identity.write(store, run_settings(changed()), None)
    kept = {path.stem: read_yaml(path, FactoryConfig()) for path in (tmp_path / "configs").iterdir()}
    assert {name: fingerprint(value) for name, value in kept.items()} == {name: name for name in kept}
    assert len(kept) == 2


def test_weights_of_the_embedded_models_are_named_by_content() -> None:
    weights = weights_of(find_networks(preset("pocket")))
    assert set(weights) == {"image", "video", "autoencoder", "text_encoder", "recon", "judge"}
    assert all(revision.startswith("sha256:") for revision in weights.values())
    assert len(set(weights.values())) == 6


@pytest.fixture(autouse=True)
def quick_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find these weights, without hashing real ones each time."""
    needs = [Need(stage="image", name="image", revisions=WEIGHTS)]
    monkeypatch.setattr("factory.stages.preflight.find_networks", lambda config: needs)


def dead_folder(folder: Path) -> list[str]:
    """An output folder with one dead letter and no asset; returns the flags of its run."""
    (folder / "prompts.txt").write_text("a red car\n")
    store = LocalStore(str(folder / "out"))
    known = {"prompt_id": "x", "prompt": "x", "error_stage": "image", "error_type": "E"}
    commit(store, dict.fromkeys(DEAD_LETTERS.names) | known, DEAD_LETTERS)
    Ledger(store).publish()
    run_identity.write(store, run_settings(preset("pocket")), WEIGHTS)
    return ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "out")]


def test_folder_with_dead_letters_only_is_guarded_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = dead_folder(tmp_path)
    before = (tmp_path / "out" / "config.yaml").read_bytes()
    assert generate.main([*flags, "--fit.iterations", "31"]) == 2
    assert "fit.iterations: 1200 -> 31" in capsys.readouterr().err
    assert (tmp_path / "out" / "config.yaml").read_bytes() == before


def test_a_stopped_run_leaves_its_page_and_gives_the_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = dead_folder(tmp_path)
    monkeypatch.setattr("jobs.prompt_line.run_prompts", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert generate.main(flags) == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped; run the same command again" in capsys.readouterr().err
    assert "Dead letters" in (tmp_path / "out" / "index.html").read_text()
    assert json.loads(next((tmp_path / "out" / "lease").iterdir()).read_text())["released"]


def test_new_run_goes_into_its_own_folder_and_back_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = dead_folder(tmp_path)
    made: list[Generate] = []
    monkeypatch.setattr(generate, "make", lambda job, *_: made.append(job) or 0)
    assert generate.main([*flags, "--new-run"]) == 0
    for _ in range(2):
        assert generate.main([*flags, "--fit.iterations", "31", "--new-run"]) == 0
    places = [job.out for job in made]
    assert places[0] == str(tmp_path / "out")
    assert places[1] == places[2] != places[0]
    assert Path(places[1]).parent == tmp_path / "out" / "runs"
    assert read_yaml(Path(places[1], "config.yaml"), FactoryConfig()).fit.iterations == 31


def test_accepted_changes_are_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = dead_folder(tmp_path)
    monkeypatch.setattr(generate, "make", lambda *_: 0)
    assert generate.main([*flags, "--fit.iterations", "31", "--accept-changes"]) == 0
    assert read_yaml(tmp_path / "out" / "config.yaml", FactoryConfig()).fit.iterations == 31
    assert generate.main([*flags, "--accept-changes", "--new-run"]) == 2


def test_what_lies_beside_a_pocket_generator_belongs_to_it(tiny_pocket) -> None:
    config = preset("pocket")
    config = dataclasses.replace(config, image=dataclasses.replace(config.image, model=str(tiny_pocket / "image")))
    before = weights_of(find_networks(config))
    path = tiny_pocket / "autoencoder" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    after = weights_of(find_networks(config))
    assert {name for name in after if after[name] != before[name]} == {"image autoencoder"}
