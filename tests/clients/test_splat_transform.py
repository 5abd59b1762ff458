"""What independent programs read of our Gaussians: PlayCanvas' splat-transform, and Niantic's own SPZ library."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory.outputs.splat_transform import convert, locate, streamed_levels
from recon.gaussians import Gaussians
from recon.ply import read_ply, write_ply
from recon.splat import splat_bytes
from recon.user_error import UserError

SPZ = """
    import spz from '@adobe/spz'; import fs from 'fs';
    const library = await spz(), data = new Uint8Array(fs.readFileSync(process.argv[1]));
    const found = library.loadSpzFromBuffer(data, {to: library.CoordinateSystem.RUB});
    console.log(JSON.stringify({positions: Array.from(found.positions), scales: Array.from(found.scales),
                                rotations: Array.from(found.rotations)}));
"""


def some_gaussians() -> Gaussians:
    random = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.rand(300, 3, generator=random) - 0.5,
        quats=torch.nn.functional.normalize(torch.randn(300, 4, generator=random), dim=-1),
        scales=torch.randn(300, 3, generator=random) * 0.2 - 3,
        opacities=torch.randn(300, generator=random),
        sh0=torch.randn(300, 1, 3, generator=random) * 0.5,
        shN=torch.randn(300, 3, 3, generator=random) * 0.1,
    )


def as_ply(gaussians: Gaussians, folder: Path) -> bytes:
    write_ply(folder / "asset.ply", gaussians)
    return (folder / "asset.ply").read_bytes()


def read_back(program: str, path: Path) -> Gaussians:
    target = path.with_suffix(".back.ply")
    subprocess.run([program, "-w", "-g", "cpu", path, target], check=True, capture_output=True)
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


def test_our_splat_is_read(splat_transform: str, tmp_path: Path) -> None:
    ours = some_gaussians()
    (tmp_path / "a.splat").write_bytes(splat_bytes(ours))
    check_same(ours, read_back(splat_transform, tmp_path / "a.splat"))


@pytest.mark.parametrize("suffix", ["spz", "sog", "compressed.ply"])
def test_converted_files_hold_the_same_gaussians(splat_transform: str, tmp_path: Path, suffix: str) -> None:
    ours = some_gaussians()
    (tmp_path / f"a.{suffix}").write_bytes(convert(as_ply(ours, tmp_path), suffix, splat_transform))
    check_same(ours, read_back(splat_transform, tmp_path / f"a.{suffix}"))


@pytest.mark.parametrize("version", [3, 4])
def test_spz_of_the_chosen_version_is_read_upright_by_niantics_library(
    splat_transform: str, node: Callable[..., Any], tmp_path: Path, version: int
) -> None:
    ours = some_gaussians()
    data = convert(as_ply(ours, tmp_path), "spz", splat_transform, ("--spz-version", str(version)))
    assert data.startswith(b"\x1f\x8b" if version == 3 else b"NGSP"), "version 3 is gzip, version 4 has a plain header"
    (tmp_path / "a.spz").write_bytes(data)
    read = node(SPZ, tmp_path / "a.spz")
    theirs = torch.tensor(read["positions"]).reshape(-1, 3)
    distances = torch.cdist(theirs, ours.means)
    assert distances.amin(1).max() < 2e-3, "x right, y up, z back, as ours"
    order = distances.argmin(1)
    torch.testing.assert_close(torch.tensor(read["scales"]).reshape(-1, 3), ours.scales[order], atol=0.1, rtol=0)
    xyzw = torch.tensor(read["rotations"]).reshape(-1, 4)
    assert (xyzw[:, [3, 0, 1, 2]] * ours.unit_quats[order]).sum(-1).abs().min() > 0.99


def test_gltf_has_linear_scales_xyzw_and_y_up(splat_transform: str, tmp_path: Path) -> None:
    """Read by the table of KHR_gaussian_splatting's attributes, with no code of ours."""
    ours = some_gaussians()
    data = convert(as_ply(ours, tmp_path), "glb", splat_transform)
    (length,) = struct.unpack_from("<I", data, 12)
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    (part,) = tree["meshes"][0]["primitives"]
    assert (part["mode"], tree["extensionsUsed"]) == (0, ["KHR_gaussian_splatting"])
    assert part["extensions"]["KHR_gaussian_splatting"] == {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }

    def attribute(name: str, width: int) -> torch.Tensor:
        accessor = tree["accessors"][part["attributes"][name]]
        assert (accessor["componentType"], accessor["count"]) == (5126, 300)
        start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
        return torch.from_numpy(np.frombuffer(binary, "<f4", 300 * width, start).reshape(300, width).copy())

    prefix = "KHR_gaussian_splatting:"
    positions = attribute("POSITION", 3)
    order = torch.cdist(positions, ours.means).argmin(1)
    torch.testing.assert_close(positions, ours.means[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(attribute(f"{prefix}SCALE", 3), ours.standard_deviations[order], atol=0, rtol=1e-4)
    torch.testing.assert_close(attribute(f"{prefix}OPACITY", 1)[:, 0], ours.alphas[order], atol=1e-5, rtol=0)
    xyzw = attribute(f"{prefix}ROTATION", 4)
    assert (xyzw[:, [3, 0, 1, 2]] * ours.unit_quats[order]).sum(-1).abs().min() > 0.9999
    torch.testing.assert_close(attribute(f"{prefix}SH_DEGREE_0_COEF_0", 3), ours.sh0[order, 0], atol=1e-5, rtol=0)
    for k in range(3):
        higher = attribute(f"{prefix}SH_DEGREE_1_COEF_{k}", 3)
        torch.testing.assert_close(higher, ours.shN[order, k], atol=1e-4, rtol=0)


def test_streamed_levels_name_files_that_are_there(splat_transform: str, tmp_path: Path) -> None:
    files = streamed_levels(as_ply(some_gaussians(), tmp_path), (0.5, 0.1), splat_transform)
    index = json.loads(files["lod-meta.json"])
    assert index["lodLevels"] == 3
    counts = [json.loads(files[name])["count"] for name in sorted(index["filenames"])]
    assert counts == [300, 150, 30], "0_0 is the finest"
    for name in index["filenames"]:
        images = json.loads(files[name])["means"]["files"]
        assert {f"{name.rsplit('/', 1)[0]}/{image}" for image in images} <= set(files)


def test_viewer_is_one_page_that_loads_nothing(splat_transform: str, tmp_path: Path) -> None:
    page = convert(as_ply(some_gaussians(), tmp_path), "html", splat_transform).decode()
    assert "<canvas" in page or "<html" in page
    assert 'src="http' not in page


def test_the_first_error_line_reaches_the_user(splat_transform: str) -> None:
    with pytest.raises(ValueError, match=r"could not write out\.spz: .*header"):
        convert(b"ply\nnot really", "spz", splat_transform)


def test_its_version_is_known(splat_transform: str) -> None:
    assert locate(splat_transform).version == "3.7.0"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'splat-transform v2.6.1'", "is splat-transform v2.6.1, 2.7 or newer is needed"),
        ("echo 'env: node: No such file or directory' >&2; exit 127", "does not start .env: node: No such file"),
        ("exit 1", "does not start .it said nothing"),
    ],
)
def test_a_program_that_is_old_or_broken_is_one_sentence(tmp_path: Path, script: str, message: str) -> None:
    program = tmp_path / "splat-transform"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=message) as caught:
        locate(str(program))
    assert "npm install -g @playcanvas/splat-transform@3.7.0" in str(caught.value)


def test_splat_bytes_are_sorted_and_finite() -> None:
    ours = some_gaussians()
    records = np.frombuffer(splat_bytes(ours), np.uint8).reshape(-1, 32)
    weight = records[:, 12:24].copy().view("<f4").prod(1) * records[:, 27]
    assert (np.diff(weight) <= np.maximum(weight[:-1], 1e-9) * 0.02).all()
    ours.scales[3, 1] = float("nan")
    with pytest.raises(ValueError, match="scales hold"):
        splat_bytes(ours)
