"""Colours, textures, transparency and light, against values computed by hand and pictures of four colours."""

import math

import numpy as np
import pytest

from recon.meshes.load import check_drawn, load_mesh, render_turntable
from tests.recon.meshes.gltf_writer import CORNERS, RGBY, Gltf, front, letters, quarters

WHITE = np.full((2, 2, 3), 255, np.uint8)


def srgb(linear: float) -> int:
    """A linear value as sRGB of 0 to 255."""
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def drawn(gltf: Gltf, material: int, **attributes: int) -> np.ndarray:
    return front(gltf.draw(gltf.quad(material, **attributes)).glb())


def textured(pixels: np.ndarray = RGBY, info: dict | None = None, **attributes) -> str:
    """Letters of a quad with a texture; arrays among the attributes become accessors, the rest goes to the sampler."""
    gltf = Gltf()
    sampler = {key: attributes.pop(key) for key in ("wrapS", "wrapT") if key in attributes}
    texture = {"index": gltf.texture(pixels, **sampler)} | (info or {})
    return letters(drawn(gltf, gltf.material(texture=texture), **{k: gltf.accessor(v) for k, v in attributes.items()}))


def test_a_texture_lies_as_it_was_written():
    assert textured() == "RGBY"


def test_the_second_set_of_coordinates_is_the_one_that_is_asked_for():
    upside_down = [[x, 1 - y] for x, y in CORNERS]
    assert textured(TEXCOORD_1=upside_down) == "RGBY"
    assert textured(info={"texCoord": 1}, TEXCOORD_1=upside_down) == "BYRG"


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ({"offset": [0.5, 0]}, "GRYB"),
        ({"offset": [0, 0.5]}, "BYRG"),
        ({"scale": [0.5, 0.5]}, "RRRR"),
        ({"scale": [0.5, 1], "offset": [0.5, 0]}, "GGYY"),
        ({"scale": [-1, 1], "offset": [1, 0]}, "GRYB"),
        ({"rotation": math.pi}, "YBGR"),
        ({"rotation": math.pi / 2}, "BRYG"),
        ({"rotation": -math.pi / 2}, "GYRB"),
        ({"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}, "BBBB"),
        ({"offset": [0, 1], "scale": [1, -1]}, "BYRG"),
        ({}, "RGBY"),
    ],
)
def test_texture_transforms(transform, expected):
    assert textured(info={"extensions": {"KHR_texture_transform": transform}}) == expected


def test_a_transform_turns_counter_clockwise_with_v_down():
    """(1, 0) goes to (0, -1) and, half as wide and moved, to the upper end of the lower left quarter."""
    gltf = Gltf()
    info = {"KHR_texture_transform": {"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}}
    material = gltf.material(texture={"index": gltf.texture(RGBY), "extensions": info})
    uvs = load_mesh(gltf.draw(gltf.quad(material)).glb()).uvs
    (left_low, right_low, right_high), (*_, left_high) = uvs.tolist()
    assert left_high == pytest.approx([0, 0], abs=1e-6)
    assert right_high == pytest.approx([0, 0.5], abs=1e-6)
    assert left_low == pytest.approx([0.5, 0], abs=1e-6)
    assert right_low == pytest.approx([0.5, 0.5], abs=1e-6)


def test_a_transform_may_choose_the_coordinates():
    upside_down = [[x, 1 - y] for x, y in CORNERS]
    chosen = {"extensions": {"KHR_texture_transform": {"texCoord": 1, "offset": [0.5, 0]}}}
    assert textured(info={"texCoord": 0} | chosen, TEXCOORD_1=upside_down) == "YBGR"


def test_normalised_16_bit_coordinates_of_a_second_set_go_through_a_transform():
    gltf = Gltf(extensionsRequired=["KHR_mesh_quantization", "KHR_texture_transform"])
    info = {"texCoord": 1, "extensions": {"KHR_texture_transform": {"scale": [2, 2]}}}
    material = gltf.material(texture={"index": gltf.texture(RGBY)} | info)
    half = gltf.accessor(np.array(CORNERS) * 32768, "u2", 4, normalized=True)
    assert letters(drawn(gltf, material, TEXCOORD_1=half)) == "RGBY"


REPEAT, CLAMP, MIRROR = 10497, 33071, 33648


@pytest.mark.parametrize(
    ("u", "v", "wrap_s", "wrap_t", "expected"),
    [
        (1, 0, REPEAT, REPEAT, "RGBY"),
        (1, 0, CLAMP, REPEAT, "GGYY"),
        (-1, 0, CLAMP, REPEAT, "RRBB"),
        (1, 0, MIRROR, REPEAT, "GRYB"),
        (-1, 0, MIRROR, REPEAT, "GRYB"),
        (2, 0, MIRROR, REPEAT, "RGBY"),
        (0, 1, REPEAT, CLAMP, "BYBY"),
        (0, -1, REPEAT, CLAMP, "RGRG"),
        (0, 1, REPEAT, MIRROR, "BYRG"),
        (0, 3, REPEAT, MIRROR, "BYRG"),
        (1, 1, MIRROR, MIRROR, "YBGR"),
        (1, 1, MIRROR, REPEAT, "GRYB"),
        (1, 1, CLAMP, MIRROR, "YYGG"),
    ],
)
def test_textures_go_on_beyond_their_edges_as_their_sampler_says(u, v, wrap_s, wrap_t, expected):
    moved = [[x + u, y + v] for x, y in CORNERS]
    assert textured(TEXCOORD_0=moved, wrapS=wrap_s, wrapT=wrap_t) == expected


def test_one_image_may_be_sampled_in_two_ways():
    gltf = Gltf()
    first = gltf.texture(RGBY)
    second = gltf.add("textures", {"source": 0, "sampler": gltf.add("samplers", {"wrapS": CLAMP})})
    moved = gltf.accessor([[x + 1, y] for x, y in CORNERS])
    quads = [gltf.quad(gltf.material(texture={"index": t}), TEXCOORD_0=moved) for t in (first, second)]
    mesh = load_mesh(gltf.draw(*quads).glb())
    assert mesh.textures.tolist() == [[0, 2, 2, 0, 0], [0, 2, 2, 1, 0]]
    assert len(mesh.texels) == 4


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_formats_of_textures(format):
    gltf = Gltf()
    gltf.texture(np.kron(RGBY, np.ones((8, 8, 1), np.uint8)), format)
    texture = {"extensions": {"EXT_texture_webp": {"source": 0}}} if format == "WEBP" else {"source": 0}
    gltf.root["textures"] = [texture]
    assert letters(drawn(gltf, gltf.material(texture={"index": 0}))) == "RGBY"


def test_16_bit_grey_keeps_its_upper_bits():
    grey = np.full((2, 2), 128 * 257, np.uint16)
    gltf = Gltf()
    assert quarters(drawn(gltf, gltf.material(texture={"index": gltf.texture(grey)})))[0][:3] == (128, 128, 128)


def test_without_coordinates_the_textures_first_texel_is_the_colour():
    gltf = Gltf()
    quad = gltf.quad(gltf.material(texture={"index": gltf.texture(RGBY)}))
    quad["attributes"].pop("TEXCOORD_0")
    assert letters(front(gltf.draw(quad).glb())) == "RRRR"


TINT = [0.5, 0.2, 0.8]


@pytest.mark.parametrize(("kind", "one"), [("f4", 1), ("u1", 255), ("u2", 65535)])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("with_material", [False, True])
def test_vertex_colours_of_every_type_are_linear(kind, one, channels, with_material):
    gltf = Gltf()
    color = np.array([TINT + [1.0] * (channels - 3)] * 4) * one
    stored = gltf.accessor(
        color if kind == "f4" else np.rint(color), kind, 8 if kind != "f4" else None, normalized=kind != "f4"
    )
    quad = gltf.quad(gltf.material(extensions={}) if with_material else None, COLOR_0=stored)
    mesh = load_mesh(gltf.draw(quad).glb())
    assert mesh.colors[0, 0] * 255 == pytest.approx([srgb(value) for value in TINT], abs=0.7)
    assert mesh.lit.all()


def test_colours_of_vertices_material_and_texture_are_multiplied():
    gltf = Gltf()
    grey = np.full((2, 2, 3), 128, np.uint8)
    material = gltf.material([0.5, 1, 0.25, 1], texture={"index": gltf.texture(grey)})
    view = drawn(gltf, material, COLOR_0=gltf.accessor([[1, 0.5, 1]] * 4))
    expected = [round(srgb(factor) * 128 / 255) for factor in (0.5, 0.5, 0.25)]
    assert quarters(view)[0][:3] == pytest.approx(expected, abs=1)


def test_white_colours_leave_a_texture_as_it_is():
    assert textured(COLOR_0=np.ones((4, 4))) == "RGBY"


SEE_THROUGH = np.concatenate([RGBY, np.array([[[255], [100]], [[127], [0]]], np.uint8)], -1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        ({}, "RGBY"),
        ({"alphaMode": "OPAQUE", "alphaCutoff": 0.9}, "RGBY"),
        ({"alphaMode": "MASK"}, "R---"),
        ({"alphaMode": "MASK", "alphaCutoff": 0}, "RGBY"),
        ({"alphaMode": "MASK", "alphaCutoff": 0.39}, "RGB-"),
        ({"alphaMode": "MASK", "alphaCutoff": 1}, "R---"),
        ({"alphaMode": "BLEND"}, "R---"),
        ({"alphaMode": "BLEND", "color": [1, 1, 1, 0.3]}, "R---"),
        ({"alphaMode": "MASK", "color": [1, 1, 1, 0.5]}, "R---"),
        ({"alphaMode": "OPAQUE", "color": [1, 1, 1, 0]}, "RGBY"),
    ],
)
def test_alpha_makes_holes(alpha, expected):
    gltf = Gltf()
    color = alpha.pop("color", None)
    material = gltf.material(color, texture={"index": gltf.texture(SEE_THROUGH)}, **alpha)
    assert letters(drawn(gltf, material)) == expected


@pytest.mark.parametrize("share", [0.05, 0.3, 0.49])
def test_what_is_see_through_everywhere_is_drawn_solid(share):
    alpha = np.full((2, 2, 1), round(255 * share), np.uint8)
    gltf = Gltf()
    material = gltf.material(texture={"index": gltf.texture(np.concatenate([RGBY, alpha], -1))}, alphaMode="BLEND")
    assert letters(drawn(gltf, material)) == "RGBY"
    plain = Gltf()
    assert letters(drawn(plain, plain.material([1, 0, 0, share], alphaMode="BLEND"))) == "RRRR"


def test_a_see_through_part_of_an_atlas_stays():
    """Its texture is opaque elsewhere, where this part does not go."""
    gltf = Gltf()
    material = gltf.material(texture={"index": gltf.texture(SEE_THROUGH)}, alphaMode="BLEND")
    right_above = gltf.accessor([[0.6 + 0.3 * x, 0.1 + 0.3 * y] for x, y in CORNERS])
    assert letters(drawn(gltf, material, TEXCOORD_0=right_above)) == "GGGG"


def test_alpha_of_vertices_cuts():
    gltf = Gltf()
    colors = gltf.accessor([[1, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]])
    assert letters(drawn(gltf, gltf.material(alphaMode="MASK"), COLOR_0=colors)) == "R-R-"


@pytest.mark.parametrize("alpha", [{"alphaMode": "MASK", "alphaCutoff": 1.5}, {"alphaMode": "BLEND"}])
def test_what_is_wholly_transparent_is_no_picture(alpha):
    gltf = Gltf()
    color = [1, 1, 1, 0] if alpha["alphaMode"] == "BLEND" else [1, 1, 1, 1]
    data = gltf.draw(gltf.quad(gltf.material(color, **alpha))).glb()
    with pytest.raises(ValueError, match="nothing of the asset is seen in any of 3 views"):
        check_drawn(render_turntable(load_mesh(data), 0.0, 16, 3))


def test_unlit_materials_need_no_name_and_one_name_may_be_both():
    gltf = Gltf()
    lit, unlit = gltf.material(extensions={}, name="paint"), gltf.material(name="paint")
    assert load_mesh(gltf.draw(gltf.quad(lit), gltf.quad(unlit)).glb()).lit.tolist() == [True, True, False, False]


def test_emission_alone_is_the_picture():
    gltf = Gltf()
    texture = {"index": gltf.texture(RGBY)}
    material = gltf.material([0, 0, 0, 1], extensions={}, emissiveTexture=texture, emissiveFactor=[1, 1, 1])
    assert letters(drawn(gltf, material)) == "RGBY"


@pytest.mark.parametrize(("strength", "expected"), [(None, 0.2), (3, 0.6), (9, 1.0), (0, 0.0)])
def test_emission_is_linear_light_and_has_a_strength(strength, expected):
    gltf = Gltf()
    strong = {} if strength is None else {"KHR_materials_emissive_strength": {"emissiveStrength": strength}}
    material = gltf.material([0, 0, 0, 1], extensions=strong, emissiveFactor=[0.2, 0, 0.2])
    assert quarters(drawn(gltf, material))[0] == (srgb(expected), 0, srgb(expected), 255)


def test_emission_is_added_to_what_is_lit_and_ignored_where_colours_are_final():
    dark, glowing, final = Gltf(), Gltf(), Gltf()
    lit = quarters(drawn(dark, dark.material([0.2] * 3 + [1], extensions={})))[0][0]
    linear = ((lit / 255 + 0.055) / 1.055) ** 2.4
    glow = glowing.material([0.2] * 3 + [1], extensions={}, emissiveFactor=[0.1] * 3)
    assert quarters(drawn(glowing, glow))[0][0] == pytest.approx(srgb(linear + 0.1), abs=2)
    material = final.material([0.2] * 3 + [1], emissiveFactor=[0.5] * 3)
    assert quarters(drawn(final, material))[0][0] == srgb(0.2)


def test_specular_glossiness_has_its_own_colour_and_texture():
    gltf = Gltf()
    glossy = {"diffuseFactor": [1, 0, 0, 1], "diffuseTexture": {"index": gltf.texture(RGBY)}}
    extensions = {"KHR_materials_pbrSpecularGlossiness": glossy, "KHR_materials_unlit": {}}
    assert letters(drawn(gltf, gltf.material([0, 0, 1, 1], extensions=extensions))) == "RKKR"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphaMode": "GLASS"}, "alphaMode is 'GLASS'. Available: OPAQUE, MASK, BLEND"),
        ({"alphaCutoff": "half", "alphaMode": "MASK"}, "alphaCutoff holds 'half'"),
        ({"emissiveFactor": [1, 2], "extensions": {}}, "emissiveFactor is .*; it must be a list of 3 numbers"),
        ({"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, float("nan")]}}, "baseColorFactor holds nan"),
        ({"pbrMetallicRoughness": {"baseColorTexture": {"index": 5}}}, r"textures\[5\] is asked for"),
        ({"pbrMetallicRoughness": {"baseColorTexture": {}}}, "index is missing"),
    ],
)
def test_materials_that_are_none_say_so(change, message):
    gltf = Gltf()
    with pytest.raises(ValueError, match=message):
        drawn(gltf, gltf.material(**change))


def test_textures_that_cannot_be_decoded_say_so():
    gltf = Gltf()
    texture = gltf.texture(WHITE)
    gltf.root["images"][0] = {"bufferView": gltf.view(b"\xabKTX 20\xbb\r\n\x1a\n")}
    material = gltf.material(texture={"index": texture})
    with pytest.raises(
        ValueError, match=r"images\[0\] is a KTX2 texture; convert it with `gltf-transform ktxdecompress"
    ):
        drawn(gltf, material)
    gltf.root["images"][0] = {"bufferView": gltf.view(b"GIF89a")}
    with pytest.raises(ValueError, match=r"unreadable images\[0\]: broken, or no picture"):
        front(gltf.glb())
    gltf.root["textures"][0].pop("source")
    with pytest.raises(ValueError, match=r"textures\[0\] has no image"):
        front(gltf.glb())
    gltf.root["samplers"][0]["wrapS"] = 3
    gltf.root["textures"][0] |= {"source": 0}
    with pytest.raises(ValueError, match=r"samplers\[0\].wrapS is 3"):
        front(gltf.glb())


def test_large_textures_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr("recon.meshes.textures.MAX_TEXTURE_PIXELS", 5)
    gltf = Gltf()
    quads = [gltf.quad(gltf.material(texture={"index": gltf.texture(WHITE)})) for _ in range(2)]
    with pytest.raises(ValueError, match=r"images\[1\] has 2x2 pixels; the limit is 1, with .* and 5 for all"):
        load_mesh(gltf.draw(*quads).glb())
