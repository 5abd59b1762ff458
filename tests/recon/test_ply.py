import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from recon import ply_conversion
from recon.gaussians import Gaussians, init_ball
from recon.ply import MAX_LOGIT, MIN_LOG_SCALE, parse_ply, properties, read_ply, write_ply


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
        (b"binary_little_endian", b"binary_middle_endian", "formats are ascii, binary_little_endian, binary_big"),
        (b"binary_little_endian", b"ascii", "rows that are no numbers|cut short"),
        (b"element vertex 4", b"element vertex 5", "cut short"),
        (b"property float opacity", b"property float whatever", "lacks the properties opacity"),
        (b"property float x", b"property string x", "known type"),
        (b"property float y", b"property float x", "a name of its own"),
        (b"element vertex 4", b"element vertex", "a name of its own and a number"),
        (b"element vertex 4", b"element vertex -4", "a name of its own and a number"),
        (b"element vertex 4\n", b"", "an element"),
        (b"element vertex 4\n", b"element vertex 4\nproperty list uchar int n\n", "lists in its element 'vertex'"),
        (b"format binary_little_endian 1.0\n", b"", "needs a line 'format ...'"),
        (b"element vertex 4", b"element corner 4", "lacks the properties"),
        (b"property float opacity", b"property float f_rest_0\nproperty float opacity", "1 f_rest properties"),
    ],
)
def test_broken_files_are_named(tmp_path, old, new, message):
    write_ply(tmp_path / "a.ply", some_gaussians(4, 0))
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_ply(tmp_path / "a.ply")


VALUES = {name: np.linspace(-1, 1, 5) + place for place, name in enumerate(properties(0))}


def foreign(
    columns: dict[str, Any] = VALUES,
    kinds: dict[str, str] | None = None,
    form: str = "binary_little_endian",
    end: str = "\n",
    before: tuple[str, bytes] = ("", b""),
    after: tuple[str, bytes] = ("", b""),
) -> bytes:
    """A PLY as others write it: `before` and `after` are lines of the header and rows around the vertices."""
    order = ">" if form == "binary_big_endian" else "<"
    kinds = dict.fromkeys(columns, "f4") | (kinds or {})
    table = np.zeros(len(next(iter(columns.values()))), [(name, order + kind) for name, kind in kinds.items()])
    for name, values in columns.items():
        table[name] = values
    names = {"f4": "float", "f8": "double", "u1": "uchar"}
    lines = [
        "ply",
        f"format {form} 1.0",
        "comment made by others",
        *before[0].split("|"),
        f"element vertex {len(table)}",
    ]
    lines += [f"property {names[kind]} {name}" for name, kind in kinds.items()] + [*after[0].split("|"), "end_header"]
    rows = table.tobytes()
    if form == "ascii":
        rows = "".join(" ".join(str(value) for value in row) + end for row in table.tolist()).encode()
    return end.join(filter(None, lines)).encode() + end.encode() + before[1] + rows + after[1]


SHARP = ("element extrinsic 2|property float extrinsic|element image_size 1|property uint image_size", bytes(12))


@pytest.mark.parametrize(
    "data",
    [
        foreign(end="\r\n"),
        foreign(form="binary_big_endian"),
        foreign(form="ascii"),
        foreign(form="ascii", end="\r\n"),
        foreign(after=SHARP),
        foreign(before=SHARP),
        foreign(form="ascii", before=(SHARP[0], b"0 0 640\n")),
        foreign(after=("element face 0|property list uchar int vertex_indices", b"")),
        foreign(after=("element face 1|property list uchar int i", b"\3" + bytes(12))),
        foreign(kinds={"x": "f8", "opacity": "f8"}),
        foreign({"red": np.arange(5)} | VALUES, {"red": "u1"}),
        foreign(dict(reversed(VALUES.items()))),
        foreign({name: values for name, values in VALUES.items() if not name.startswith("n")}),
    ],
    ids=[
        "crlf",
        "big-endian",
        "ascii",
        "ascii-crlf",
        "elements-after",
        "elements-before",
        "ascii-before",
        "no-faces",
        "a-face",
        "double",
        "uchar",
        "order",
        "no-normals",
    ],
)
def test_files_of_others_have_the_values_of_ours(data: bytes) -> None:
    found = parse_ply(data)
    np.testing.assert_allclose(found.means, np.stack([VALUES[n] for n in "xyz"], 1), rtol=1e-6)
    np.testing.assert_allclose(found.scales, np.stack([VALUES[f"scale_{i}"] for i in range(3)], 1), rtol=1e-6)
    np.testing.assert_allclose(found.quats, np.stack([VALUES[f"rot_{i}"] for i in range(4)], 1), rtol=1e-6)
    np.testing.assert_allclose(found.sh0[:, 0], np.stack([VALUES[f"f_dc_{i}"] for i in range(3)], 1), rtol=1e-6)
    np.testing.assert_allclose(found.opacities, VALUES["opacity"], rtol=1e-6)


def test_infinite_opacity_is_opaque_and_a_scale_of_minus_infinity_flat() -> None:
    inf = np.inf
    found = parse_ply(foreign(VALUES | {"opacity": [inf, -inf, 0, 1, 2], "scale_2": [-inf, 0, 0, 0, 0]}))
    assert found.opacities[:3].tolist() == [MAX_LOGIT, -MAX_LOGIT, 0]
    assert found.alphas[0] == 1
    assert found.scales[:2, 2].tolist() == [MIN_LOG_SCALE, 0]
    for column in ({"scale_1": [inf] * 5}, {"opacity": [np.nan] * 5}, {"x": [inf] * 5}):
        with pytest.raises(ValueError, match="5 values that are not finite"):
            parse_ply(foreign(VALUES | column))


def test_quaternions_of_length_zero_are_unturned_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    found = parse_ply(foreign(VALUES | {f"rot_{i}": [0, 1, 1, 1, 0] for i in range(4)}))
    assert found.quats[[0, 4]].tolist() == [[1, 0, 0, 0]] * 2
    assert "asset.ply: 2 of 5 quaternions have length 0" in caplog.text


POINTS = {name: VALUES[name] for name in "xyz"} | {"red": [255] * 5, "green": [0] * 5, "blue": [51] * 5}
DISCS = {name: values for name, values in VALUES.items() if name != "scale_2"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (foreign(DISCS), "2D Gaussians .* convert it with `python -m recon.ply_conversion"),
        (foreign(POINTS), "point cloud of 5 points.* convert it with `python -m recon.ply_conversion"),
        (foreign({"packed_position": [0] * 5}), "SuperSplat; convert it with `splat-transform IN.ply OUT.ply`"),
        (foreign(POINTS, after=("element face 1|property list uchar int i", b"\0")), "a mesh of 1 faces"),
    ],
)
def test_other_kinds_are_named_with_the_command_that_converts(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_ply(data)


def test_discs_and_points_are_converted(tmp_path, capsys) -> None:
    (tmp_path / "discs.ply").write_bytes(foreign(DISCS))
    assert ply_conversion.main([str(tmp_path / "discs.ply"), str(tmp_path / "out.ply")]) == 0
    found = read_ply(tmp_path / "out.ply")
    np.testing.assert_allclose(found.scales[:, 0], VALUES["scale_0"], rtol=1e-6)
    assert (found.scales[:, 2] == MIN_LOG_SCALE).all()
    (tmp_path / "points.ply").write_bytes(foreign(POINTS, {"red": "u1", "green": "u1", "blue": "u1"}))
    assert ply_conversion.main([str(tmp_path / "points.ply"), str(tmp_path / "out.ply")]) == 0
    found = read_ply(tmp_path / "out.ply")
    np.testing.assert_allclose(found.base_colours[0], [1, 0, 0.2], atol=1e-6)
    step = 0.5 * 3**0.5  # the middle point has two neighbours at one step and the others at two
    np.testing.assert_allclose(found.standard_deviations[2], step * (1 + 1 + 2) / 3, rtol=1e-5)
    (tmp_path / "own.ply").write_bytes(foreign())
    assert ply_conversion.main([str(tmp_path / "nothing.ply"), str(tmp_path / "out.ply")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_a_header_that_promises_more_than_there_is_allocates_nothing(form: str) -> None:
    data = foreign(form=form).replace(b"element vertex 5", b"element vertex 5000000000000")
    with pytest.raises(ValueError, match="cut short"):
        parse_ply(data)
