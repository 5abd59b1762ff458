"""One view of a triangle soup: a z-buffer, then light on what is seen. Arrays are those of `recon.meshes.load.Mesh`."""

import math

import numba
import numpy as np

# Two soft world-fixed lights; direction to the light, then strength.
_LIGHTS = np.array([[0.40, 0.75, 0.53, 0.32], [-0.70, 0.20, -0.68, 0.12]], np.float32)
_AMBIENT, _SKY = np.float32(0.40), np.float32(0.12)
_NEAR = 0.05
"""Triangles with a corner nearer to the camera than this are left out, world units."""
_ROUNDING = 1e-6
"""By which an alpha may miss the cutoff that it equals."""
_SAMPLES = 12
"""Steps along a triangle's side in which its greatest alpha is looked for."""


@numba.njit(cache=True)
def render_view(
    corners, normals, uvs, colors, alphas, texture_ids, texels, textures, cutoffs, lit, emissions, emission_ids,
    emission_uvs, viewmat, focal, side,
):  # fmt: skip
    """Z-buffer one view, then shade what is seen; returns premultiplied float32 samples [side,side,4]."""
    inverse = np.zeros((side, side))
    seen = np.full((side, side), np.int32(-1), np.int32)
    image = np.zeros((side, side, 4), np.float32)
    half = side / 2
    px, py, pz = np.empty((len(corners), 3)), np.empty((len(corners), 3)), np.empty((len(corners), 3))
    for f in range(len(corners)):
        _project(corners[f], viewmat, focal, half, px[f], py[f], pz[f])
        if pz[f].min() > 0:
            _cover(f, px[f], py[f], pz[f], uvs, alphas, texture_ids, texels, textures, cutoffs, inverse, seen)
    eye = np.zeros(3)
    for c in range(3):
        eye -= viewmat[c, :3] * viewmat[c, 3]
    for j in range(side):
        for i in range(side):
            f = seen[j, i]
            if f >= 0:
                b0, b1, b2 = _weights(px[f], py[f], i + 0.5, j + 0.5)
                z = 1 / inverse[j, i]
                b0, b1, b2 = b0 * pz[f, 0] * z, b1 * pz[f, 1] * z, b2 * pz[f, 2] * z
                red, green, blue = _albedo(f, b0, b1, b2, uvs, colors, texture_ids, texels, textures)
                light = _light(f, b0, b1, b2, corners, normals, eye) if lit[f] else 1.0
                red, green, blue = min(red * light, 1.0), min(green * light, 1.0), min(blue * light, 1.0)
                if emissions[f].max() > 0:
                    glow = np.full(3, 1.0)
                    if emission_ids[f] >= 0:
                        texel = _texel(f, b0, b1, b2, emission_uvs, emission_ids, textures)
                        for c in range(3):
                            glow[c] = _linear(texels[texel, c] / 255)
                    red = _srgb(_linear(red) + glow[0] * emissions[f, 0])
                    green = _srgb(_linear(green) + glow[1] * emissions[f, 1])
                    blue = _srgb(_linear(blue) + glow[2] * emissions[f, 2])
                image[j, i, 0], image[j, i, 1], image[j, i, 2], image[j, i, 3] = red, green, blue, 1.0
    return image


@numba.njit(cache=True, inline="always")
def _project(corners, viewmat, focal, half, px, py, pz):
    """Pixel coordinates and inverse depths of a triangle; inverse depth 0 where a corner is not before the camera."""
    for c in range(3):
        x, y, z = corners[c]
        depth = viewmat[2, 0] * x + viewmat[2, 1] * y + viewmat[2, 2] * z + viewmat[2, 3]
        pz[c] = 1 / depth if depth >= _NEAR else 0.0
        px[c] = half + focal * (viewmat[0, 0] * x + viewmat[0, 1] * y + viewmat[0, 2] * z + viewmat[0, 3]) * pz[c]
        py[c] = half + focal * (viewmat[1, 0] * x + viewmat[1, 1] * y + viewmat[1, 2] * z + viewmat[1, 3]) * pz[c]


@numba.njit(cache=True, inline="always")
def _weights(px, py, u, v):
    """Barycentric weights of a point of the image; no numbers for a triangle without area."""
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
    b0 = ((px[1] - u) * (py[2] - v) - (px[2] - u) * (py[1] - v)) / area
    b1 = ((px[2] - u) * (py[0] - v) - (px[0] - u) * (py[2] - v)) / area
    return b0, b1, 1 - b0 - b1


@numba.njit(cache=True)
def _cover(f, px, py, pz, uvs, alphas, texture_ids, texels, textures, cutoffs, inverse, seen):
    """Enter a triangle where it is nearest; not where its alpha falls below the cutoff."""
    side = len(seen)
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
    if abs(area) < 1e-9:
        return
    x0, x1 = max(0, math.floor(px.min() - 0.5)), min(side - 1, math.ceil(px.max()))
    y0, y1 = max(0, math.floor(py.min() - 0.5)), min(side - 1, math.ceil(py.max()))
    step_0, step_1 = (py[1] - py[2]) / area, (py[2] - py[0]) / area
    for j in range(y0, y1 + 1):
        first_0, first_1, _ = _weights(px, py, 0.5, j + 0.5)
        for i in range(x0, x1 + 1):
            b0, b1 = first_0 + i * step_0, first_1 + i * step_1
            b2 = 1 - b0 - b1
            if b0 < 0 or b1 < 0 or b2 < 0:
                continue
            w = b0 * pz[0] + b1 * pz[1] + b2 * pz[2]
            if w <= inverse[j, i]:
                continue
            if cutoffs[f] > 0:
                b0, b1, b2 = b0 * pz[0] / w, b1 * pz[1] / w, b2 * pz[2] / w
                alpha = b0 * alphas[f, 0] + b1 * alphas[f, 1] + b2 * alphas[f, 2]
                if texture_ids[f] >= 0:
                    alpha *= texels[_texel(f, b0, b1, b2, uvs, texture_ids, textures), 3] / 255
                if alpha < cutoffs[f] - _ROUNDING:
                    continue
            inverse[j, i], seen[j, i] = w, f


@numba.njit(cache=True, inline="always")
def _texel(f, b0, b1, b2, uvs, texture_ids, textures):
    """Which texel lies at a point of a triangle."""
    u = b0 * uvs[f, 0, 0] + b1 * uvs[f, 1, 0] + b2 * uvs[f, 2, 0]
    v = b0 * uvs[f, 0, 1] + b1 * uvs[f, 1, 1] + b2 * uvs[f, 2, 1]
    offset, width, height, wrap_u, wrap_v = textures[texture_ids[f]]
    column = min(int(_wrapped(u, wrap_u) * width), width - 1)
    row = min(int(_wrapped(1 - v, wrap_v) * height), height - 1)
    return offset + row * width + column


@numba.njit(cache=True, inline="always")
def _wrapped(place, wrap):
    """A place on a texture's axis taken into [0, 1]; `wrap`: REPEAT, CLAMP or MIRROR of `recon.meshes.textures`."""
    if wrap == 1:
        return min(max(place, 0.0), 1.0)
    if wrap == 2:
        turn = place - 2 * math.floor(place / 2)
        return min(turn, 2 - turn)
    return place - math.floor(place)


@numba.njit(cache=True, inline="always")
def _albedo(f, b0, b1, b2, uvs, colors, texture_ids, texels, textures):
    red = b0 * colors[f, 0, 0] + b1 * colors[f, 1, 0] + b2 * colors[f, 2, 0]
    green = b0 * colors[f, 0, 1] + b1 * colors[f, 1, 1] + b2 * colors[f, 2, 1]
    blue = b0 * colors[f, 0, 2] + b1 * colors[f, 1, 2] + b2 * colors[f, 2, 2]
    if texture_ids[f] < 0:
        return red, green, blue
    texel = texels[_texel(f, b0, b1, b2, uvs, texture_ids, textures)]
    return red * texel[0] / 255, green * texel[1] / 255, blue * texel[2] / 255


@numba.njit(cache=True)
def greatest_alpha(uvs, alphas, texture_id, texels, textures):
    """The greatest alpha at `_SAMPLES` + 1 places along each side of triangles; `uvs` [F,3,2], `alphas` [F,3]."""
    greatest = 0.0
    ids = np.full(len(alphas), texture_id, np.int32)
    for f in range(len(alphas)):
        for k in range(_SAMPLES + 1):
            for m in range(_SAMPLES + 1 - k):
                b0, b1 = k / _SAMPLES, m / _SAMPLES
                b2 = max(1 - b0 - b1, 0.0)
                alpha = b0 * alphas[f, 0] + b1 * alphas[f, 1] + b2 * alphas[f, 2]
                if texture_id >= 0:
                    alpha *= texels[_texel(f, b0, b1, b2, uvs, ids, textures), 3] / 255
                greatest = max(greatest, alpha)
    return greatest


@numba.njit(cache=True, inline="always")
def _linear(srgb):
    return srgb / 12.92 if srgb <= 0.04045 else ((srgb + 0.055) / 1.055) ** 2.4


@numba.njit(cache=True, inline="always")
def _srgb(linear):
    """An sRGB value up to 1."""
    return 12.92 * linear if linear <= 0.0031308 else min(1.055 * linear ** (1 / 2.4) - 0.055, 1.0)


@numba.njit(cache=True, inline="always")
def _light(f, b0, b1, b2, corners, normals, eye):
    """Light on a point of a triangle, seen from whichever side the eye is on."""
    x = b0 * normals[f, 0, 0] + b1 * normals[f, 1, 0] + b2 * normals[f, 2, 0]
    y = b0 * normals[f, 0, 1] + b1 * normals[f, 1, 1] + b2 * normals[f, 2, 1]
    z = b0 * normals[f, 0, 2] + b1 * normals[f, 1, 2] + b2 * normals[f, 2, 2]
    facing = (eye[0] - b0 * corners[f, 0, 0] - b1 * corners[f, 1, 0] - b2 * corners[f, 2, 0]) * x
    facing += (eye[1] - b0 * corners[f, 0, 1] - b1 * corners[f, 1, 1] - b2 * corners[f, 2, 1]) * y
    facing += (eye[2] - b0 * corners[f, 0, 2] - b1 * corners[f, 1, 2] - b2 * corners[f, 2, 2]) * z
    length = math.sqrt(x * x + y * y + z * z) + 1e-12
    length = -length if facing < 0 else length
    light = _AMBIENT + _SKY * y / length
    for k in range(len(_LIGHTS)):
        cosine = (x * _LIGHTS[k, 0] + y * _LIGHTS[k, 1] + z * _LIGHTS[k, 2]) / length
        light += _LIGHTS[k, 3] * (0.5 + 0.5 * cosine)
    return light
