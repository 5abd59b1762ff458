import dataclasses

import numpy as np
import pytest
import torch

from recon.gaussians import Gaussians, init_ball
from recon.ply import read_ply, write_ply


def some_gaussians(count: int, degree: int) -> Gaussians:
    generator = torch.Generator().manual_seed(degree)
    ball = init_ball(count, sh_degree=degree, generator=generator)
    noise = {f.name: torch.randn(getattr(ball, f.name).shape, generator=generator) for f in dataclasses.fields(ball)}
    return Gaussians(**noise)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_read_gives_back_what_was_written(tmp_path, degree):
    gaussians = some_gaussians(7, degree)
    write_ply(tmp_path / "a.ply", gaussians)
    back = read_ply(tmp_path / "a.ply")
    for field in ("means", "scales", "opacities", "sh0", "shN"):
        assert torch.equal(getattr(back, field), getattr(gaussians, field)), field
    assert torch.allclose(back.quats, gaussians.unit_quats, atol=1e-7)
    assert back.sh_degree == degree


def test_bytes_are_the_3dgs_layout(tmp_path):
    gaussians = some_gaussians(2, 1)
    write_ply(tmp_path / "a.ply", gaussians)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [
        "f_rest_0",
        "f_rest_1",
        "f_rest_2",
        "f_rest_3",
        "f_rest_4",
        "f_rest_5",
        "f_rest_6",
        "f_rest_7",
        "f_rest_8",
    ]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 2\n"
    header += b"".join(b"property float %s\n" % name.encode() for name in names) + b"end_header\n"
    data = (tmp_path / "a.ply").read_bytes()
    assert data.startswith(header)
    row = dict(zip(names, np.frombuffer(data[len(header) :], "<f4").reshape(2, -1)[1], strict=True))
    assert [row["x"], row["y"], row["z"]] == gaussians.means[1].tolist()
    assert row["nx"] == row["ny"] == row["nz"] == 0
    assert [row["f_rest_0"], row["f_rest_1"], row["f_rest_2"]] == gaussians.shN[1, :, 0].tolist()
    assert [row["f_rest_6"], row["f_rest_7"], row["f_rest_8"]] == gaussians.shN[1, :, 2].tolist()
    assert row["opacity"] == gaussians.opacities[1]
    assert [row["scale_0"], row["scale_2"]] == gaussians.scales[1, [0, 2]].tolist()
    assert row["rot_0"] == pytest.approx(float(gaussians.quats[1, 0] / gaussians.quats[1].norm()), abs=1e-6)


def test_no_gaussians_is_a_file_too(tmp_path):
    gaussians = some_gaussians(3, 0)
    write_ply(
        tmp_path / "a.ply", Gaussians(**{f.name: getattr(gaussians, f.name)[:0] for f in dataclasses.fields(gaussians)})
    )
    assert len(read_ply(tmp_path / "a.ply")) == 0


@pytest.mark.parametrize(("field", "value"), [("means", float("nan")), ("opacities", float("inf"))])
def test_values_that_are_not_finite_are_refused(tmp_path, field, value):
    gaussians = some_gaussians(3, 0)
    getattr(gaussians, field).view(-1)[1] = value
    with pytest.raises(ValueError, match=r"not finite.*a\.ply"):
        write_ply(tmp_path / "a.ply", gaussians)
    assert not (tmp_path / "a.ply").exists()


def test_a_quaternion_of_length_zero_is_refused(tmp_path):
    gaussians = some_gaussians(3, 0)
    gaussians.quats[1] = 0
    with pytest.raises(ValueError, match="1 of 3 quaternions have length 0"):
        write_ply(tmp_path / "a.ply", gaussians)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ply\n", b"PLY\n", "no PLY file"),
        (b"binary_little_endian", b"ascii", "only 'format binary_little_endian"),
        (b"element vertex 4", b"element vertex 5", "cut short"),
        (b"property float opacity", b"property float whatever", "lacks the properties opacity"),
        (b"property float x", b"property uchar x", "only float properties"),
        (b"property float y", b"property float x", "each once"),
        (b"element vertex 4", b"element vertex", "one 'element vertex N'"),
        (b"element vertex 4", b"element vertex -4", "one 'element vertex N'"),
        (b"element vertex 4\n", b"", "needs the lines"),
        (b"format binary_little_endian 1.0\n", b"", "needs the lines"),
        (b"property float opacity", b"property float f_rest_0\nproperty float opacity", "1 f_rest properties"),
    ],
)
def test_broken_files_are_named(tmp_path, old, new, message):
    write_ply(tmp_path / "a.ply", some_gaussians(4, 0))
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_ply(tmp_path / "a.ply")
