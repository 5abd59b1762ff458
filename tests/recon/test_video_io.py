import numpy as np
import pytest

from recon.video_io import decode_mp4, encode_mp4


def clip(count: int = 16, side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    frames = [np.stack([x * 3, y * 3, np.full_like(x, 10 * k)], -1) for k in range(count)]
    return np.clip(frames, 0, 255).astype(np.uint8)


def test_frames_survive_within_a_few_grey_levels_in_order():
    frames = clip()
    decoded = decode_mp4(encode_mp4(frames))
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    error = np.abs(decoded.astype(int) - frames).mean((1, 2, 3))
    assert error.max() < 3


def test_file_is_h264_yuv420p_at_the_given_rate():
    import io

    import av

    with av.open(io.BytesIO(encode_mp4(clip(), fps=12))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 12
        assert stream.frames == 16


def test_same_frames_same_bytes():
    assert encode_mp4(clip()) == encode_mp4(clip())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 64, 64, 4), np.uint8), r"uint8 \[T>=1,H,W,3\]"),
        (np.zeros((4, 64, 64, 3), np.float32), "float32"),
        (np.zeros((0, 64, 64, 3), np.uint8), "T>=1"),
        (np.zeros((4, 63, 64, 3), np.uint8), "63x64.*even"),
    ],
)
def test_bad_frames_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        encode_mp4(frames)


@pytest.mark.parametrize("data", [b"", b"not a video", encode_mp4(clip())[:200]])
def test_bad_bytes_are_refused(data):
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        decode_mp4(data)
