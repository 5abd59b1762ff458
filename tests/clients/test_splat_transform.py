"""What PlayCanvas' splat-transform, an independent program, reads and writes of our files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from factory.outputs.splat_transform import convert, locate
from recon.gaussians import Gaussians
from recon.ply import read_ply, write_ply
from recon.splat import splat_bytes

PROGRAM = shutil.which("splat-transform")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="splat-transform is not installed (npm)")


def some_gaussians() -> Gaussians:
    random = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.rand(300, 3, generator=random) - 0.5,
        quats=torch.nn.functional.normalize(torch.randn(300, 4, generator=random), dim=-1),
        scales=torch.randn(300, 3, generator=random) * 0.2 - 3,
        opacities=torch.randn(300, generator=random),
        sh0=torch.randn(300, 1, 3, generator=random) * 0.5,
        shN=torch.zeros(300, 0, 3),
    )


def read_back(path: Path) -> Gaussians:
    target = path.with_suffix(".back.ply")
    subprocess.run([PROGRAM, "-w", "-g", "cpu", path, target], check=True, capture_output=True)
    return read_ply(target)


def check_same(ours: Gaussians, theirs: Gaussians) -> None:
    """The same Gaussians in any order, within what bytes can hold."""
    distances = torch.cdist(theirs.means, ours.means)
    order = distances.argmin(1)
    assert len(theirs) == len(ours) == len(order.unique())
    assert distances.amin(1).max() < 2e-3
    torch.testing.assert_close(theirs.scales, ours.scales[order], atol=0.1, rtol=0)
    torch.testing.assert_close(theirs.alphas, ours.alphas[order], atol=0.01, rtol=0)
    wanted = (0.5 + 0.2821 * ours.sh0[order]).clamp(0, 1)
    torch.testing.assert_close((0.5 + 0.2821 * theirs.sh0).clamp(0, 1), wanted, atol=0.06, rtol=0)
    turned = (theirs.unit_quats * ours.unit_quats[order]).sum(-1).abs()
    assert turned.min() > 0.99


def test_our_splat_is_read(tmp_path: Path) -> None:
    ours = some_gaussians()
    (tmp_path / "a.splat").write_bytes(splat_bytes(ours))
    check_same(ours, read_back(tmp_path / "a.splat"))


@pytest.mark.parametrize("suffix", ["spz", "sog"])
def test_converted_files_hold_the_same_gaussians(tmp_path: Path, suffix: str) -> None:
    ours = some_gaussians()
    write_ply(tmp_path / "asset.ply", ours)
    (tmp_path / f"a.{suffix}").write_bytes(convert((tmp_path / "asset.ply").read_bytes(), suffix, locate(str(PROGRAM))))
    check_same(ours, read_back(tmp_path / f"a.{suffix}"))


def test_viewer_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    write_ply(tmp_path / "asset.ply", some_gaussians())
    page = convert((tmp_path / "asset.ply").read_bytes(), "html", locate(str(PROGRAM))).decode()
    assert "<canvas" in page or "<html" in page
    assert 'src="http' not in page


def test_the_programs_own_words_reach_the_user() -> None:
    with pytest.raises(ValueError, match="could not write spz"):
        convert(b"ply\nnot really", "spz", locate(str(PROGRAM)))


def test_splat_bytes_are_sorted_and_finite() -> None:
    ours = some_gaussians()
    records = np.frombuffer(splat_bytes(ours), np.uint8).reshape(-1, 32)
    weight = records[:, 12:24].copy().view("<f4").prod(1) * records[:, 27]
    assert (np.diff(weight) <= np.maximum(weight[:-1], 1e-9) * 0.02).all()
    ours.scales[3, 1] = float("nan")
    with pytest.raises(ValueError, match="scales hold"):
        splat_bytes(ours)
