"""PLY meshes of all writers, compared with what their numbers mean."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from recon.meshes.load import load_mesh

QUAD = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
ROOF = [*QUAD, (0, 2, 0)]
TWO = [(0, 1, 2), (0, 2, 3)]
L_SHAPE = [(0, 0, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0), (1, 2, 0), (0, 2, 0)]
CODES = {"uchar": "B", "ushort": "H", "short": "h", "int": "i", "uint": "I", "float": "f", "double": "d", "uint8": "B"}
FORMATS = ["ascii", "binary_little_endian", "binary_big_endian"]


def ply(
    form: str, vertices: list, faces: list, kind: str = "float", colors: str = "", names: tuple[str, ...] = (),
    face_names: tuple[str, ...] = (), corner: str = "int", more: tuple[str, list] | None = None, end: str = "\n",
) -> bytes:  # fmt: skip
    """A PLY of vertices and faces; a face is its corners, or those and its colour."""
    order = {"binary_big_endian": ">"}.get(form, "<")
    lines = ["ply", f"format {form} 1.0", "comment made by hand", f"element vertex {len(vertices)}"]
    lines += [f"property {kind} {axis}" for axis in "xyz"] + [f"property {colors} {name}" for name in names]
    lines += [f"element face {len(faces)}", f"property list uchar {corner} vertex_indices"]
    lines += [f"property {colors} {name}" for name in face_names]
    lines += [f"element {more[0]} {len(more[1])}", "property list int int vertex_indices"] if more else []

    def row(codes: str, numbers: list) -> bytes:
        if form == "ascii":
            return (" ".join(map(str, numbers)) + end).encode()
        return struct.pack(order + codes, *numbers)

    body = b"".join(row(3 * CODES[kind] + len(names) * CODES.get(colors, ""), list(vertex)) for vertex in vertices)
    for face in faces:
        corners, color = face if face_names else (face, ())
        codes = "B" + len(corners) * CODES[corner] + len(color) * CODES.get(colors, "")
        body += row(codes, [len(corners), *corners, *color])
    for numbers in more[1] if more else []:
        body += row("i" + len(numbers) * "i", [len(numbers), *numbers])
    return (end.join([*lines, "end_header"]) + end).encode() + body


def area(data: bytes) -> float:
    """Of all triangles, each counted; a fan over a concave corner has too much."""
    corners = load_mesh(data, "ply", in_place=True).corners
    return (
        float(np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1).sum()) / 2
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("corner", ["int", "uint", "ushort", "uint8"])
@pytest.mark.parametrize("faces", [TWO, [(0, 1, 2, 3)]], ids=["triangles", "quad"])
def test_faces_of_every_type(form, kind, corner, faces):
    assert area(ply(form, QUAD, faces, kind, corner=corner)) == pytest.approx(4)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("faces", [[(0, 1, 2, 3), (3, 2, 4)], [(3, 2, 4), (0, 1, 2, 3)]], ids=["quad", "triangle"])
def test_faces_may_have_different_numbers_of_corners(form, faces):
    assert area(ply(form, ROOF, faces)) == pytest.approx(5)


@pytest.mark.parametrize("first", range(6))
def test_concave_faces_are_cut_where_they_are(first):
    face = tuple(np.roll(range(6), first).tolist())
    assert area(ply("ascii", L_SHAPE, [face, (0, 1, 2)])) == pytest.approx(3 + 1)


@pytest.mark.parametrize("form", FORMATS)
def test_strips_are_drawn_and_minus_one_begins_another(form):
    strips = ("tristrips", [(0, 1, 3, 2, -1, 3, 2, 4)])
    assert area(ply(form, ROOF, [], more=strips)) == pytest.approx(5)
    assert area(ply(form, ROOF, [(3, 2, 4)], more=("tristrips", [(0, 1, 3, 2)]))) == pytest.approx(5)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("kind", "color"),
    [
        ("uchar", (204, 102, 51)), ("ushort", (52428, 26214, 13107)), ("float", (0.8, 0.4, 0.2)),
        ("double", (0.8, 0.4, 0.2)), ("float", (204.0, 102.0, 51.0)), ("int", (204, 102, 51)),
        ("short", (204, 102, 51)), ("uint", (52428, 26214, 13107)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("names", ["red green blue", "diffuse_red diffuse_green diffuse_blue", "r g b"])
@pytest.mark.parametrize("owner", ["vertex", "face"])
def test_colours_of_every_type_and_name(form, kind, color, names, owner):
    words = tuple(names.split())
    if owner == "vertex":
        data = ply(form, [vertex + color for vertex in QUAD], TWO, colors=kind, names=words)
    else:
        data = ply(form, QUAD, [(face, color) for face in TWO], colors=kind, face_names=words)
    assert np.abs(load_mesh(data, "ply").colors - [0.8, 0.4, 0.2]).max() < 1e-6


def test_dark_bytes_in_a_text_are_bytes():
    data = ply("ascii", [(*vertex, 1, 1, 0) for vertex in QUAD], TWO, colors="uchar", names=("red", "green", "blue"))
    assert load_mesh(data, "ply").colors.max() == pytest.approx(1 / 255)


def test_each_face_has_its_own_colour():
    faces = [((0, 1, 2, 3), (255, 0, 0)), ((3, 2, 4), (0, 255, 0))]
    mesh = load_mesh(
        ply("binary_little_endian", ROOF, faces, colors="uchar", face_names=("red", "green", "blue")), "ply"
    )
    reds = mesh.colors[:, 0, 0] == 1
    assert reds.sum() == 2
    assert mesh.corners[reds][..., 1].max() < mesh.corners[~reds][..., 1].max()


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems(end):
    assert area(ply("ascii", QUAD, TWO, end=end)) == pytest.approx(4)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("vertices", "faces", "more", "message"),
    [
        (QUAD, [(0, 1, 4)], None, "a face names vertex 4; there are 4"),
        (QUAD, [(0, 1, -1)], None, "a face names vertex -1; there are 4"),
        (QUAD, [], ("tristrips", [(0, 1, 9)]), "a face names vertex 9"),
        (QUAD, [(0, 1)], None, "a face has 2 corners"),
        (QUAD, [(0, 1, 2)], ("edge", [(0, 1)]), "draws 1 edges; only faces are read"),
        (QUAD, [], None, "no triangles"),
    ],
)
def test_faces_that_are_none_are_refused(form, vertices, faces, more, message):
    with pytest.raises(ValueError, match=message):
        load_mesh(ply(form, vertices, faces, more=more), "ply")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("faces", [TWO, [(0, 1, 2), (0, 1, 2, 3)]], ids=["alike", "different"])
def test_files_that_are_cut_off_say_so(form, faces):
    whole = ply(form, QUAD, faces)
    with pytest.raises(ValueError, match="cut off in the 2 rows of 'face'"):
        load_mesh(whole[: len(whole) - 3 if form == "ascii" else -3], "ply")
