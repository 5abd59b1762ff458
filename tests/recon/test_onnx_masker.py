import builtins
import hashlib
import shutil

import numpy as np
import onnxruntime
import pytest

from recon.masks import masks_of
from recon.onnx_masker import U2NETP, OnnxMasker, offered_device
from recon.over_white import over_white

pytest.importorskip("onnxruntime")


def disc(background: int, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A shaded red disc before a grey, uint8 [1,H,W,3], and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < 30**2
    frame = np.full((1, height, width, 3), background, np.uint8)
    frame[0, inside] = np.stack([180 + x[inside] / 3, 30 + y[inside] / 4, 40 + 0 * x[inside]], -1)
    return frame, inside


@pytest.fixture(scope="module")
def masker() -> OnnxMasker:
    return OnnxMasker(threads=1)


@pytest.mark.parametrize("background", [255, 128])
def test_an_object_is_cut_out_of_opaque_frames(masker, background):
    frame, inside = disc(background)
    mask = masks_of(frame, masker)
    assert mask.shape == (1, 96, 128)
    found = mask[0] > 127
    assert (found & inside).sum() / (found | inside).sum() > 0.9
    assert (over_white(frame, mask)[0, :8] >= 250).all()


def test_every_frame_has_its_own_mask_in_order(masker):
    frames = np.concatenate([disc(255)[0], np.roll(disc(255)[0], 30, 2)])
    both = masker(frames)
    for frame, mask in zip(frames, both, strict=True):
        assert np.array_equal(masker(frame[None])[0], mask)
    assert not np.array_equal(*both)


def test_the_file_is_the_published_one(masker):
    data = masker.path.read_bytes()
    assert hashlib.md5(data).hexdigest() == "8e83ca70e441ab06c318d82300c84806"
    assert masker.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert "8e83ca70e441ab06c318d82300c84806" in (U2NETP / "README.md").read_text()


def test_unusable_files_and_devices_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"holds 0 \.onnx files"):
        OnnxMasker(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"a\.onnx is no ONNX network"):
        OnnxMasker(tmp_path)
    shutil.copy(tmp_path / "a.onnx", tmp_path / "b.onnx")
    with pytest.raises(ValueError, match=r"holds 2 \.onnx files"):
        OnnxMasker(tmp_path)
    with pytest.raises(ValueError, match="device is 'tpu'"):
        OnnxMasker(device="tpu")


def test_cuda_that_is_compiled_in_but_does_not_load_is_not_offered(monkeypatch):
    compiled = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled)  # its libraries are missing here
    assert offered_device("cuda") == "cpu"
    assert offered_device("cpu") == "cpu"


def test_a_missing_runtime_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'im3d-factory\[paper\]'"):
        OnnxMasker()
