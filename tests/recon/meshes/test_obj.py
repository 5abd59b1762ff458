"""OBJ files with the materials and textures beside them, against values computed by hand."""

import numpy as np
import pytest

from recon.meshes.load import load_mesh, render_turntable
from tests.recon.meshes.gltf_writer import RGBY, letters, png

QUAD = "v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
PAINTED = f"mtllib quad.mtl\n{QUAD}usemtl paint\nf 1/1 2/2 3/3 4/4\n"


def written(folder, obj: str, **files: str | bytes):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "model.obj").write_text(obj)
    return folder / "model.obj"


def seen(path) -> str:
    """Letters of the front, as if the colours were final: those of textures are full or none."""
    mesh = load_mesh(path)
    mesh.lit[:] = False
    return letters(render_turntable(mesh, 0.0, 64, 1)[0])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("map_Kd paint.png", "RGBY"),
        ("map_Kd my paint.png", "RGBY"),
        ("map_Kd textures\\paint.png", "RGBY"),
        ("map_Kd ./paint.png", "RGBY"),
        ("map_Kd -s 0.5 0.5 1 -o 0.5 0.5 0 paint.png", "GGGG"),
        ("map_Kd -o 0.5 paint.png", "GRYB"),
        ("map_Kd -clamp on -o 1 0 0 paint.png", "GGYY"),
        ("map_Kd -blendu off -bm 0.3 paint.png", "RGBY"),
        ("Kd 0.2 0.2 0.2\nmap_Kd paint.png", "RGBY"),
        ("Kd 1 0 1", "????"),
        ("Kd 1 0 0", "RRRR"),
        ("Kd 1 0 0\nd 0.2\nTr 0.8", "RRRR"),
        ("Kd 1 0 0\r", "RRRR"),
    ],
)
def test_materials_beside_an_obj(tmp_path, line, expected):
    files = {name: png(RGBY) for name in ("paint_dot_png", "my paint_dot_png", "textures__paint_dot_png")}
    assert seen(written(tmp_path, PAINTED, quad_dot_mtl=f"newmtl paint\n{line}\n", **files)) == expected


def test_map_d_makes_holes_where_it_is_the_same_picture(tmp_path):
    rgba = np.concatenate([RGBY, np.array([[[255], [0]], [[0], [255]]], np.uint8)], -1)
    mtl = "newmtl paint\nmap_Kd paint.png\n"
    path = written(tmp_path, PAINTED, quad_dot_mtl=mtl, paint_dot_png=png(rgba))
    assert seen(path) == "RGBY"
    (tmp_path / "quad.mtl").write_text(mtl + "map_d paint.png\n")
    assert seen(path) == "R--Y"
    (tmp_path / "quad.mtl").write_text(mtl + "map_d holes.png\n")
    with pytest.raises(ValueError, match="map_d is another picture than map_Kd"):
        seen(path)


def test_several_materials_colour_their_own_faces(tmp_path):
    obj = f"mtllib a.mtl\nmtllib b c.mtl\n{QUAD}usemtl red\nf 1 2 3\nusemtl two words\nf 1 3 4\n"
    mesh = load_mesh(written(
        tmp_path, obj, a_dot_mtl="newmtl red\nKd 1 0 0\n", **{"b c_dot_mtl": "newmtl two words\n\tKd 0 0.5 1\n"}
    ))  # fmt: skip
    assert mesh.colors[:, 0].tolist() == [[1, 0, 0], [0, 0.5, 1]]


def test_numbers_from_the_end_continued_lines_and_polygons():
    mesh = load_mesh((QUAD + "f -4 -3 \\\n-2 -1 # all four\n").encode(), "obj", in_place=True)
    assert mesh.corners.tolist() == [
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0]],
        [[-1, -1, 0], [1, 1, 0], [-1, 1, 0]],
    ]


def test_normals_are_the_files_and_flat_without():
    text = QUAD + "vn 0 3 4\nf 1//1 2//1 3//1\nf 1 3 4\n"
    mesh = load_mesh(text.encode(), "obj")
    assert mesh.normals[0, 0] == pytest.approx([0, 0.6, 0.8])
    assert mesh.normals[1, 0] == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("one", [1, 255])
def test_colours_of_vertices_are_srgb(one):
    text = f"v 0 0 0 {one} 0 0\nv 1 0 0 {one} 0 0\nv 0 1 0 0 0 {0.5 * one}\nf 1 2 3\n"
    assert load_mesh(text.encode(), "obj").colors[0, [0, 2]].tolist() == [[1, 0, 0], [0, 0, 0.5]]


def test_colours_slightly_above_one_are_no_bytes():
    text = "v 0 0 0 1.00001 0 0\nv 1 0 0 1 0 0\nv 0 1 0 0 0 0.5\nf 1 2 3\n"
    assert load_mesh(text.encode(), "obj").colors[0, [0, 2]].tolist() == [[1, 0, 0], [0, 0, 0.5]]


def test_a_byte_order_mark_hides_no_line(tmp_path):
    path = written(tmp_path, "\ufeff" + PAINTED, quad_dot_mtl="\ufeffnewmtl paint\nmap_Kd paint.png\n",
                   paint_dot_png=png(RGBY))  # fmt: skip
    assert seen(path) == "RGBY"
    path.write_text("\ufeffv 9 9 9\n" + PAINTED.replace("1/1 2/2 3/3 4/4", "2/1 3/2 4/3 5/4"))
    assert seen(path) == "RGBY"


def test_names_of_materials_may_hold_a_sign_of_comments(tmp_path):
    obj = PAINTED.replace("usemtl paint", "usemtl Material #25  ").replace("vt 0 0", "vt 0 0 # a comment")
    assert seen(written(tmp_path, obj, quad_dot_mtl="newmtl Material #25\nKd 1 0 0\n")) == "RRRR"


@pytest.mark.parametrize(
    ("obj", "files", "message"),
    [
        (PAINTED, {}, r"line 1: the model needs 'quad.mtl', which is not beside it"),
        (PAINTED, {"quad_dot_mtl": "newmtl paint\nmap_Kd paint.png"}, r"the model needs 'paint.png', which is not"),
        (PAINTED, {"quad_dot_mtl": "newmtl other\nKd 1 1 1"}, "material 'paint' is in none of the .mtl files"),
        (PAINTED, {"quad_dot_mtl": "newmtl paint\nmap_Kd ../p.png"}, "'../p.png' lies outside of the model's folder"),
        (PAINTED, {"quad_dot_mtl": "newmtl paint\nmap_Kd C:\\p.png"}, "lies outside of the model's folder"),
        (PAINTED, {"quad_dot_mtl": "newmtl paint\nKd 1 red"}, "Kd is '1 red'; it must be three numbers"),
        (PAINTED, {"quad_dot_mtl": "Kd 1 1 1"}, "Kd comes before any newmtl"),
        (PAINTED, {"quad_dot_mtl": "newmtl paint\nmap_Kd -mm 0 2 p.png"}, "options -mm, -t and -imfchan"),
        (
            PAINTED,
            {"quad_dot_mtl": "newmtl paint\nmap_Kd paint.png", "paint_dot_png": b"GIF"},
            "unreadable '?paint.png'?: broken",
        ),
        (QUAD + "f 1 2 7\n", {}, "line 9: a face names v 7; there are 4 before it"),
        (QUAD + "f 1 2 0\n", {}, "a face names v 0"),
        (QUAD + "f -5 2 3\n", {}, "a face names v -5"),
        (QUAD + "f 1/9 2/1 3/1\n", {}, "a face names vt 9"),
        (QUAD + "f 1 2\n", {}, "f needs three corners"),
        (QUAD + "f 1 two 3\n", {}, "line 9: invalid literal"),
        ("v 1 2\n", {}, "v needs three numbers"),
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", {}, "non-finite vertices"),
        (QUAD + "l 1 2\nf 1 2 3\n", {}, r"it draws lines \(l\)"),
        (QUAD + "p 1\nf 1 2 3\n", {}, r"it draws points \(p\)"),
        (QUAD + "cstype bezier\n", {}, "free-form surfaces"),
        (QUAD, {}, "no triangles"),
        ("", {}, "no triangles"),
    ],
)
def test_what_is_missing_broken_or_not_read_is_named(tmp_path, obj, files, message):
    with pytest.raises(ValueError, match=f"cannot read this obj: .*{message}"):
        load_mesh(written(tmp_path, obj, **files))


def test_an_obj_that_came_alone_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"needs 'quad.mtl' beside it, and came alone"):
        load_mesh(PAINTED.encode(), "obj")


def test_materials_without_a_file_are_white():
    assert (load_mesh((QUAD + "usemtl paint\nf 1 2 3\n").encode(), "obj").colors == 1).all()


def test_faces_are_counted_as_they_are_read(monkeypatch):
    monkeypatch.setattr("recon.meshes.load.MAX_FACES", 1)
    with pytest.raises(ValueError, match="line 9: asset has over 1 faces"):
        load_mesh((QUAD + "f 1 2 3 4\n").encode(), "obj")
