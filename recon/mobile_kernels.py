"""Convolve pictures channels last, eight channels at a time: `columns`, `from_columns`, `depthwise`, `distance_to`.

Pictures are flat float32 [H*W*C], C a multiple of 8. ReLU6 is passed where it is strictly between 0 and 6, as by torch.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recon.rasterize.simd import WIDTH, fma, lane_sum, load, select, splat, store

SIX = np.float32(6.0)
TINY = np.float32(1e-8)
"""Added to the squared length of features, as in `recon.perceptual`."""


@njit(cache=True)
def columns(picture, mean, scale, out):
    """out [h*w,27]: the 3x3 neighbourhoods of picture [H,W,3] at every second pixel, (value - mean) * scale, 0 beyond
    the border."""
    height, width = picture.shape[:2]
    for y in range((height + 1) // 2):
        for x in range((width + 1) // 2):
            row = out[y * ((width + 1) // 2) + x]
            for ky in range(3):
                for kx in range(3):
                    v, u, at = 2 * y + ky - 1, 2 * x + kx - 1, 9 * ky + 3 * kx
                    inside = 0 <= v < height and 0 <= u < width
                    for c in range(3):
                        row[at + c] = (picture[v, u, c] - mean) * scale if inside else np.float32(0.0)


@njit(cache=True)
def from_columns(gradients, scale, out):
    """Adds to out [H,W,3] what `columns` took from there, of gradients [h*w,27]."""
    height, width = out.shape[:2]
    for y in range((height + 1) // 2):
        for x in range((width + 1) // 2):
            row = gradients[y * ((width + 1) // 2) + x]
            for ky in range(3):
                for kx in range(3):
                    v, u, at = 2 * y + ky - 1, 2 * x + kx - 1, 9 * ky + 3 * kx
                    if 0 <= v < height and 0 <= u < width:
                        for c in range(3):
                            out[v, u, c] += row[at + c] * scale


@njit(forceinline=True)
def _passed(gradient, activation):
    """The gradient where ReLU6, whose value is `activation`, lets it through."""
    return select((activation > np.float32(0.0)) & (activation < SIX), gradient, np.float32(0.0))


@njit(cache=True)
def mask_relu6(gradients, activations):
    """gradients = gradients where 0 < activations < 6, else 0; both flat."""
    for at in range(0, gradients.shape[0], WIDTH):
        store(gradients, at, _passed(load(gradients, at), load(activations, at)))


@njit(forceinline=True)
def _taps(place, pad, kernel, stride, count):
    """Which taps bring the gradient to `place`: the first, and from and to which of its followers, `stride` apart, the
    outputs exist; tap first + i * stride comes from output `last` - i."""
    first = (place + pad) % stride
    last = (place + pad - first) // stride
    return first, last, max(0, last - count + 1), min((kernel - first + stride - 1) // stride, last + 1)


@njit(cache=True)
def depthwise(picture, shape, weights, bias, kernel, stride, out):
    """out = relu6(convolution of every channel of `picture` by its own kernel, padded by half the kernel).

    Args:
        shape: (H, W, C) of the picture; weights [kernel^2 * C]; bias [C]; out [h*w*C], h = ceil(H / stride).
    """
    height, width, channels = shape
    wide, pad = (width + stride - 1) // stride, kernel // 2
    for y in range((height + stride - 1) // stride):
        top = y * stride - pad
        start_y, end_y = max(0, -top), min(kernel, height - top)
        for x in range(wide):
            left = x * stride - pad
            start_x, end_x = max(0, -left), min(kernel, width - left)
            for c in range(0, channels, WIDTH):
                total = load(bias, c)
                for ky in range(start_y, end_y):
                    at, tap = ((top + ky) * width + left) * channels + c, ky * kernel * channels + c
                    for kx in range(start_x, end_x):
                        total = fma(load(picture, at + kx * channels), load(weights, tap + kx * channels), total)
                total = select(total > SIX, SIX, select(total > np.float32(0.0), total, np.float32(0.0)))
                store(out, (y * wide + x) * channels + c, total)


@njit(cache=True)
def depthwise_gradient(gradients, shape, weights, kernel, stride, activations, out):
    """out [H*W*C]: what `depthwise` hands on to its picture of gradients [h*w*C] before ReLU6; only what the ReLU6 of
    `activations`, which are the picture, passed, unless they are empty."""
    height, width, channels = shape
    tall, wide, pad = (height + stride - 1) // stride, (width + stride - 1) // stride, kernel // 2
    masked = activations.shape[0] > 0
    for y in range(height):
        first_y, last_y, start_y, end_y = _taps(y, pad, kernel, stride, tall)
        for x in range(width):
            first_x, last_x, start_x, end_x = _taps(x, pad, kernel, stride, wide)
            for c in range(0, channels, WIDTH):
                total = splat(np.float32(0.0))
                for i in range(start_y, end_y):
                    tap = ((first_y + i * stride) * kernel + first_x) * channels + c
                    at = ((last_y - i) * wide + last_x) * channels + c
                    for j in range(start_x, end_x):
                        weight = load(weights, tap + j * stride * channels)
                        total = fma(load(gradients, at - j * channels), weight, total)
                at = (y * width + x) * channels + c
                store(out, at, _passed(total, load(activations, at)) if masked else total)


@njit(cache=True)
def unit_features(features, channels, out):
    """out: features [P*C] of every pixel divided by their length."""
    for start in range(0, features.shape[0], channels):
        total = splat(np.float32(0.0))
        for at in range(start, start + channels, WIDTH):
            total = fma(load(features, at), load(features, at), total)
        inverse = np.float32(1.0) / np.sqrt(lane_sum(total) + TINY)
        for at in range(start, start + channels, WIDTH):
            store(out, at, load(features, at) * inverse)


@njit(cache=True)
def distance_to(target, features, channels, weight, gradients):
    """weight * the mean over pixels of the squared distance between unit features and `target`, which are unit already.

    gradients [P*C] becomes its gradient by the features [P*C]; an empty one asks for none.
    """
    pixels, summed = features.shape[0] // channels, 0.0
    factor = np.float32(weight / pixels)
    for start in range(0, features.shape[0], channels):
        squares, along = splat(np.float32(0.0)), splat(np.float32(0.0))
        for at in range(start, start + channels, WIDTH):
            squares = fma(load(features, at), load(features, at), squares)
        inverse = np.float32(1.0) / np.sqrt(lane_sum(squares) + TINY)
        squares = splat(np.float32(0.0))
        for at in range(start, start + channels, WIDTH):
            unit = load(features, at) * inverse
            off = unit - load(target, at)
            squares, along = fma(off, off, squares), fma(off, unit, along)
        summed += lane_sum(squares)
        if gradients.shape[0]:
            share, scale = lane_sum(along), np.float32(2.0) * factor * inverse
            for at in range(start, start + channels, WIDTH):
                unit = load(features, at) * inverse
                store(gradients, at, (unit - load(target, at) - unit * share) * scale)
    return summed * factor
