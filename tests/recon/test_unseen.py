"""What no camera sees is closed as a soap film would: flat over a rim, where there was a cone of debris."""

import numpy as np
import pytest

from recon.cameras import OrbitConfig, turntable
from recon.solid import Solid, without_small_parts
from recon.unseen import closed

STEP, SIDE = 0.04, 56
ORIGIN = np.full(3, -STEP * (SIDE - 1) / 2)
X, Y, Z = ORIGIN[0] + STEP * np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"))
ABOVE = turntable(0.7, 96, OrbitConfig(num_views=12))


def solid(depth: np.ndarray) -> Solid:
    """The solid where `depth`, world units, is positive."""
    values = np.pad((1 + depth / STEP).clip(0, 2)[1:-1, 1:-1, 1:-1], 1).astype(np.float32)
    return Solid(values=values, field=np.repeat(values[None], 4, 0), origin=ORIGIN, step=STEP)


def closed_solid(depth: np.ndarray) -> np.ndarray:
    given = solid(depth)
    return closed(given.values, given.surface(), ORIGIN, STEP, ABOVE)


RADIUS = np.hypot(X, Z)
DISC = np.minimum(0.7 - RADIUS, 0.1 - np.abs(Y - 0.1))
CONE = np.minimum(0.66 - RADIUS - 1.15 * (0.0 - Y), np.minimum(0.1 - Y, Y + 0.6))
"""Below the disc, within all its outlines as cameras at 40 degrees see them."""


def test_a_cone_below_a_disc_goes_and_the_disc_stays():
    made = closed_solid(np.maximum(DISC, CONE)) > 1
    disc = DISC > 0
    assert made[disc & (Y > 0.08)].mean() > 0.97, "what is seen stays"
    below = (CONE > 0) & (Y < -0.15)
    assert below.sum() > 1000
    assert made[below].mean() < 0.02, "no camera needs it"
    assert made[(RADIUS < 0.5) & (np.abs(Y - 0.05) < 0.02)].mean() > 0.9, "the film is flat, at the rim"


def test_what_is_open_from_below_is_filled():
    bell = np.minimum(np.minimum(0.6 - np.sqrt(RADIUS**2 + Y**2), np.sqrt(RADIUS**2 + Y**2) - 0.45), Y + 0.02)
    made = closed_solid(bell) > 1
    assert made[(np.sqrt(RADIUS**2 + Y**2) < 0.4) & (Y > 0.1)].mean() > 0.95


def test_a_box_on_the_ground_stays_what_it_is():
    depth = np.minimum.reduce([0.5 - np.abs(X), 0.4 - np.abs(Y), 0.45 - np.abs(Z)])
    changed = (closed_solid(depth) > 1) != (depth > 0)
    assert changed[np.abs(depth) > 1.5 * STEP].mean() < 0.01


@pytest.mark.parametrize(("place", "kept"), [((0.85, 0.1, 0.0), True), ((0.0, -0.3, 0.0), False)])
def test_a_small_part_stays_if_cameras_see_it(place, kept):
    crumb = 0.09 - np.sqrt((X - place[0]) ** 2 + (Y - place[1]) ** 2 + (Z - place[2]) ** 2)
    given = solid(np.maximum(DISC, crumb))
    assert (without_small_parts(given, ABOVE).values[crumb > STEP] > 1).all() == kept
    given = solid(np.maximum(DISC, crumb))
    assert not (without_small_parts(given, None).values[crumb > STEP] > 1).any(), "unless no cameras are known"
