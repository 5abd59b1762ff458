"""Collections merged into one table: paths, captions and licences."""

import json
from pathlib import Path

import pytest

from model.pocket.asset_table import corrected_captions, merged
from recon.user_error import UserError


def collection(folder: Path, *rows: dict) -> Path:
    folder.mkdir()
    lines = (
        json.dumps({"path": f"glb/{row['id']}.glb", "caption": "a thing", "license": "CC0-1.0"} | row) for row in rows
    )
    (folder / "assets.jsonl").write_text("\n".join(lines))
    return folder


def test_paths_lead_from_the_common_folder_and_captions_are_mended(tmp_path: Path):
    first = collection(tmp_path / "first", {"id": "kenney__bacon", "caption": "a bacon"})
    second = collection(tmp_path / "second", {"id": "b", "license": "CC-BY-3.0"}, {"id": "c"})
    rows = list(merged([first, second], tmp_path, ["CC0-1.0"]))
    assert [row["path"] for row in rows] == ["first/glb/kenney__bacon.glb", "second/glb/c.glb"]
    assert rows[0]["caption"] == corrected_captions()["kenney__bacon"] != "a bacon"
    assert len(list(merged([first, second], tmp_path))) == 3


def test_licences_go_by_name_or_by_name_and_version(tmp_path: Path):
    licenses = ["CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US", "CC-BY-SA-4.0", "MIT-0"]
    folder = collection(tmp_path / "first", *({"id": name, "license": name} for name in licenses))
    assert [row["id"] for row in merged([folder], tmp_path, ["CC0", "MIT-0"])] == ["CC0-1.0", "MIT-0"]
    assert [row["id"] for row in merged([folder], tmp_path, ["CC-BY"])] == ["CC-BY-3.0", "CC-BY-3.0-US"]
    with pytest.raises(UserError, match=r"no asset is under the licence GPL; there are CC-BY-3.0 \(1\)"):
        list(merged([folder], tmp_path, ["CC0", "GPL"]))


def test_an_id_in_two_collections_is_refused(tmp_path: Path):
    folders = [collection(tmp_path / name, {"id": "a"}) for name in ("first", "second")]
    with pytest.raises(ValueError, match="id a is in another collection too"):
        list(merged(folders, tmp_path))


def test_mended_captions_are_short_phrases():
    for caption in corrected_captions().values():
        assert caption == caption.strip().lower()
        assert 1 <= len(caption.split()) <= 10
