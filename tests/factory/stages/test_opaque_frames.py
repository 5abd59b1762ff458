"""Opaque pictures and frames are cut out and put on white before anything is fitted to them."""

from types import SimpleNamespace

import numpy as np
import pytest

from factory.config.settings import ViewsConfig
from factory.ledger.schemas import pack, unpack
from factory.stages.find_views import FindViews
from factory.stages.masker import Masker, onnx_file
from factory.stages.text_to_image import TextToImage
from recon.config import OrbitConfig


def discs(background: int) -> np.ndarray:
    """Four red discs on a grey ground, uint8 [4,64,64,3]."""
    rows, columns = np.mgrid[:64, :64]
    frame = np.full((64, 64, 3), background, np.uint8)
    frame[np.hypot(rows - 31.5, columns - 31.5) < 18] = (200, 30, 30)
    return np.stack([frame] * 4)


def test_frames_on_grey_leave_the_stage_on_white() -> None:
    config = SimpleNamespace(views=ViewsConfig(masks="u2netp", elevation=0.3), orbit=OrbitConfig(num_views=4))
    row = {"frames": pack(discs(128))}
    FindViews(config).process([row])
    frames, masks = unpack(row["frames"]), unpack(row["masks"])
    assert masks[:, 32, 32].min() > 200
    assert masks[:, :6, :6].max() < 8
    assert frames[:, :6, :6].min() > 247
    assert np.abs(frames[:, 28:36, 28:36].astype(int) - (200, 30, 30)).max() < 25


def test_frames_with_alpha_are_left_as_they_are() -> None:
    config = SimpleNamespace(views=ViewsConfig(elevation=0.3), orbit=OrbitConfig(num_views=4))
    frames = np.concatenate([discs(255), np.full((4, 64, 64, 1), 255, np.uint8)], -1)
    row = {"frames": pack(frames)}
    before = row["frames"]
    FindViews(config).process([row])
    assert row["frames"] is before


def test_a_generated_picture_is_cut_out_and_framed() -> None:
    stage = object.__new__(TextToImage)
    stage.masker = Masker("u2netp")
    image = stage._on_white(np.roll(discs(128)[0], 8, axis=1))
    assert image.shape == (64, 64, 4)
    columns = np.nonzero(image[..., 3].max(0) > 127)[0]
    assert abs(columns.min() + columns.max() - 63) <= 2  # centred
    assert columns.max() - columns.min() > 50  # and as large as in a turntable
    assert image[2, 2, :3].min() > 247


def test_a_masker_that_is_not_there_says_how_to_get_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nothing\.onnx is not there: .* --views\.masks u2netp"):
        onnx_file(str(tmp_path / "nothing.onnx"))
    with pytest.raises(ValueError, match=r"views\.masks is 'rembg'; give pocket, u2netp, isnet or an \.onnx file"):
        ViewsConfig(masks="rembg")
