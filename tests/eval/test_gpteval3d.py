"""The files that GPTEval3D's script reads: names, sizes, colours of normals."""

import io

import numpy as np
import pytest
from PIL import Image

from eval.gpteval3d import files_of, place_of


def test_files_are_named_by_place_seed_and_view() -> None:
    rgb = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    normals = np.zeros((3, 4, 4, 3), np.float32)
    normals[:, 1, 1] = (0, 0, 1)  # our front is theirs along +x
    normals[:, 2, 2] = (0, 1, 0)  # our up is theirs along +z
    found = dict(files_of("gpteval3d-17", rgb, normals))
    assert sorted(found) == [f"17/0/{what}_{view}.png" for what in ("normal", "rgb") for view in range(3)]
    assert (np.asarray(Image.open(io.BytesIO(found["17/0/rgb_2.png"]))) == rgb[2]).all()
    seen = np.asarray(Image.open(io.BytesIO(found["17/0/normal_0.png"])))
    assert seen[1, 1] == pytest.approx([255, 128, 128], abs=1)
    assert seen[2, 2] == pytest.approx([128, 128, 255], abs=1)
    assert not seen[0, 0].any()


def test_ids_must_name_a_place() -> None:
    assert place_of("gpteval3d-007") == 7
    for name in ("car", "gpteval3d-1.seed2", "t3bench-1"):
        with pytest.raises(ValueError, match=f"'{name}' names no place in GPTEval3D's prompts.json; use ids"):
            place_of(name)
