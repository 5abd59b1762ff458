"""`im3d view`: the page is served, and a client receives the Gaussians of the asset that is chosen."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory.outputs.viewer import Viewer, covariances
from jobs import view
from recon.gaussians import init_ball
from recon.ply import write_ply

viser = pytest.importorskip("viser")


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    for name, count in (("cup", 50), ("house", 80)):
        write_ply(tmp_path / f"{name}.ply", init_ball(count, generator=torch.Generator().manual_seed(0)))
    (tmp_path / "torn.ply").write_bytes(b"ply\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = tuple(str(tmp_path / f"{name}.ply") for name in ("cup", "house", "torn"))
    opened = view.open_viewer(view.View(ply=paths, port=port))
    yield opened
    opened.server.stop()


def received(port: int) -> list[dict[str, Any]]:
    """The messages with which the server greets a browser, up to the Gaussians."""
    import msgspec
    import zstandard
    from websockets.sync.client import connect

    protocol: Any = f"viser-v{viser.__version__}"
    found: list[dict[str, Any]] = []
    with connect(f"ws://127.0.0.1:{port}", subprotocols=[protocol], max_size=None) as client:
        while not any(message["type"] == "GaussianSplatsMessage" for message in found):
            data = client.recv(timeout=60)
            assert isinstance(data, bytes)
            packed = data[16 : 16 + int.from_bytes(data[8:16], "little")]
            window = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed))
            found += [message | {"lengths": window["binaryBufferLengths"]} for message in window["messages"]]
    return found


def test_a_browser_gets_the_page_and_the_chosen_gaussians(viewer: Viewer) -> None:
    page = urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}", timeout=60).read()
    assert b"<html" in page.lower()
    assert viewer.about.value == "cup: 50 Gaussians"
    assert [m["lengths"] for m in received(viewer.port) if m["type"] == "GaussianSplatsMessage"] == [[50 * 32]]
    viewer.show("house")
    assert [m["lengths"] for m in received(viewer.port) if m["type"] == "GaussianSplatsMessage"] == [[80 * 32]]
    viewer.show("torn")
    assert "cannot be shown: torn.ply is no PLY file" in viewer.about.value


def test_covariances_are_those_of_the_axes() -> None:
    gaussians = init_ball(20, generator=torch.Generator().manual_seed(0))
    gaussians.quats[:] = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    gaussians.scales += torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    deviations = np.linalg.eigvalsh(covariances(gaussians).astype(np.float64)) ** 0.5
    np.testing.assert_allclose(deviations, np.sort(gaussians.standard_deviations.numpy(), 1), rtol=1e-3)


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert view.main(["--run", str(tmp_path)]) == 2
    assert "holds no assets" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        view.main([])
    assert "either --run" in capsys.readouterr().err
