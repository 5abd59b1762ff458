"""Weights at s3:// behind an endpoint that only the settings name."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.s3_server import BUCKET, CREDENTIALS
from factory.line.stage import Stage
from factory.storage.interface import StorageConfig
from factory.storage.store import open_store
from factory.storage.weights import read_weights_by
from jobs.weights import main as weights_command
from model import remote, weights
from recon.user_error import UserError

NETWORK = json.dumps({"_class_name": "AutoencoderKL"}).encode()


@pytest.fixture
def endpoint(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server with one network, which the environment knows keys for and no address."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(weights, "_CACHE", tmp_path / "cache")
    monkeypatch.setattr(remote, "_opener", remote._opener)
    store = open_store(f"s3://{BUCKET}/endpoint-of-settings", StorageConfig(endpoint=s3_endpoint))
    store.put("net/config.json", NETWORK)
    return s3_endpoint


def test_a_network_is_copied_from_the_settings_endpoint(endpoint: str) -> None:
    read_weights_by(StorageConfig(endpoint=endpoint))
    place = weights.locate(f"s3://{BUCKET}/endpoint-of-settings/net", "image")
    assert (place / "config.json").read_bytes() == NETWORK
    assert weights.reader(f"s3://{BUCKET}/endpoint-of-settings/net", "image")("config.json") == json.loads(NETWORK)


def test_a_stage_reads_as_its_storage_says(endpoint: str) -> None:
    class Loading(Stage):
        name = "loading"

        def load(self) -> None:
            self.place = weights.locate(f"s3://{BUCKET}/endpoint-of-settings/net", "image")

    assert (Loading(SimpleNamespace(), storage=StorageConfig(endpoint=endpoint)).place / "config.json").is_file()


def test_a_command_reads_as_its_flags_say(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights_command(["check", f"s3://{BUCKET}/endpoint-of-settings", "--storage.endpoint", endpoint])
    capsys.readouterr()
    assert weights.locate(f"s3://{BUCKET}/endpoint-of-settings/net", "image").is_dir()


def test_other_addresses_are_opened_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_opener", remote._opener)
    monkeypatch.setattr(weights, "_CACHE", tmp_path / "cache")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_bytes(NETWORK)
    read_weights_by(StorageConfig())
    place = weights.locate((tmp_path / "net").as_uri(), "image")
    assert (place / "config.json").read_bytes() == NETWORK
    with pytest.raises(UserError, match="cannot read model weights at nothing://here"):
        weights.locate("nothing://here", "image")
