"""The turntable benchmark's figures on videos whose figures are known."""

from xml.etree import ElementTree

import numpy as np
import pytest
import trimesh

from benchmarks.assets import load_assets
from benchmarks.turntable import by_azimuth, masked_iou, measure, plot, psnr, rotation_hits
from recon.meshes.load import load_mesh, render_turntable
from recon.perceptual import load_perceptual


@pytest.fixture(scope="module")
def truth():
    mesh = trimesh.util.concatenate([trimesh.creation.box((2, 0.6, 0.4)), trimesh.creation.icosphere(radius=0.5)])
    mesh.apply_translation([0.8, 0, 0.3])
    tail = trimesh.creation.cone(radius=0.4, height=1.2)
    return render_turntable(load_mesh((mesh + tail).export(file_type="glb")), 0.4, 64)


def test_perfect_frames_hit_and_repeated_ones_do_not(truth):
    assert rotation_hits(truth, truth).all()
    repeated = rotation_hits(np.repeat(truth[:1], 16, 0), truth)
    assert repeated.nonzero()[0].tolist() == [0, 14]
    assert rotation_hits(np.roll(truth, 1, 0), truth).all()
    assert not rotation_hits(np.roll(truth, 2, 0), truth).any()


def test_repeating_the_first_frame_is_the_baseline(truth):
    scores = measure(np.repeat(truth[:1], 16, 0), truth)
    assert scores["psnr"] == scores["baseline_psnr"] < measure(truth, truth)["psnr"]
    assert scores["iou"] == scores["baseline_iou"] < 1
    again = by_azimuth(np.repeat(truth[:1], 16, 0), truth, load_perceptual("pocket"))
    assert (again["lpips"] == again["baseline_lpips"]).all()
    assert again["lpips"].min() > 0


def test_one_wrong_frame_shows_at_its_azimuth_and_in_the_plot(truth):
    frames = truth.copy()
    frames[5] = 255
    scores = by_azimuth(frames, truth)
    assert scores["psnr"].argmin() == 4
    assert scores["iou"].argmin() == 4
    svg = ElementTree.fromstring(plot(scores))
    model = [path for path in svg.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke") == "#27608b"]
    heights = [float(place.split()[1]) for place in model[0].attrib["d"][1:].split("L")]
    assert len(model) == 3
    assert int(np.argmax(heights)) == 4


def test_psnr_and_iou_in_closed_form():
    a = np.full((8, 8), 100, np.uint8)
    assert psnr(a, a + 51) == pytest.approx(-20 * np.log10(0.2))
    left, right = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    left[:, :3], right[:, 1:] = 255, 255
    assert masked_iou(left, right) == 0.5


def test_asset_folders_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"no assets\.jsonl"):
        load_assets(tmp_path)
    (tmp_path / "assets.jsonl").write_text('{"id": "a", "path": "glb/a.glb", "caption": "a", "split": "train"}\n')
    with pytest.raises(ValueError, match="Available: train"):
        load_assets(tmp_path, "val")
    assert [asset.asset_id for asset in load_assets(tmp_path, "train")] == ["a"]
