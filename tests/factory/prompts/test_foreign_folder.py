"""Anyone's folder of videos and models, by the ids that their names begin with."""

from __future__ import annotations

from pathlib import Path

from factory.prompts.foreign_folder import asset_files, assets_of_folder


def test_files_are_found_by_their_names() -> None:
    names = ["car.mp4", "car.ply", "cup.GLB", "notes.txt", "a.b.obj"]
    assert asset_files(names) == {
        "car": {"frames_path": "car.mp4", "model_path": "car.ply"},
        "cup": {"model_path": "cup.GLB"},
        "a.b": {"model_path": "a.b.obj"},
    }


def test_two_models_of_one_name_get_a_word(tmp_path: Path) -> None:
    for name in ("car.glb", "car.ply", "cup.ply"):
        (tmp_path / name).touch()
    (tmp_path / "prompts.csv").write_text("prompt_id,prompt\ncar,a car\ncup,a cup\n")
    rows = {row["prompt_id"]: row for row in assets_of_folder(str(tmp_path), str(tmp_path / "prompts.csv"))}
    assert rows["car"]["error"] == "two files are called car: car.glb and car.ply; keep one"
    assert "error" not in rows["cup"]
