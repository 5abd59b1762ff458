"""Prompts with a known answer are read by the line, and name the object that they show."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from benchmarks.truth_prompts import Arguments, main
from factory.evaluation.fidelity import truth_of, truth_paths
from factory.prompts.prompt_table import read_prompts
from factory.storage.interface import StorageConfig


def test_the_table_shows_each_object_and_names_it(tmp_path: Path) -> None:
    for name, size in (("tall", (0.2, 1.0, 0.2)), ("wide", (1.0, 0.2, 0.2))):
        trimesh.creation.box(size).export(tmp_path / f"{name}.glb")
    rows = [
        {"id": name, "path": f"{name}.glb", "caption": f"a {name} box", "split": "val"} for name in ("tall", "wide")
    ]
    (tmp_path / "assets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = read_prompts(str(main(Arguments(assets=tmp_path, size=32, elevation_degrees=0.0, out=tmp_path / "out"))))
    assert not table.rejected
    _, paths = truth_paths(str(tmp_path), StorageConfig())
    assert [truth_of(prompt.prompt_id, paths) for prompt in table.prompts] == ["tall.glb", "wide.glb"]
    for prompt, axis in zip(table.prompts, (0, 1)):
        covered = np.asarray(Image.open(io.BytesIO(prompt.image or b"")))[..., 3] > 127
        spread = [np.ptp(places) for places in covered.nonzero()]
        assert spread[axis] > 2 * spread[1 - axis]
