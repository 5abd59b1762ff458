"""Encode and decode turntables as MP4, h264 and yuv420p, which every browser plays: `encode_mp4`, `decode_mp4`."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np

QUALITY = 18
"""x264 constant rate factor: 0 lossless, 51 worst; 18 is visually lossless."""


def encode_mp4(frames: np.ndarray, fps: int = 8) -> bytes:
    """Encode `frames` uint8 [T,H,W,3]; the same frames give the same bytes.

    Args:
        frames: T >= 1; H and W even, since yuv420p halves the colour planes.
        fps: frames a second, > 0.

    Raises:
        ValueError: for another dtype, shape, size or rate.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; a video wants uint8 [T>=1,H,W,3]")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2 or min(height, width) < 2:
        raise ValueError(f"frames are {height}x{width}; h264 yuv420p wants even sides, so pad or resize by one pixel")
    if fps < 1:
        raise ValueError(f"fps is {fps}; it must be at least 1")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(QUALITY), "threads": "1", "flags": "+bitexact"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_mp4(data: bytes) -> np.ndarray:
    """Decode the first video stream of `data` to uint8 [T,H,W,3].

    Raises:
        ValueError: if the bytes hold no readable video.
    """
    import av

    try:
        with av.open(io.BytesIO(data), "r") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"these {len(data)} bytes are no readable video: {error}") from error
    if not frames:
        raise ValueError(f"these {len(data)} bytes hold no video frame")
    return np.stack(frames)


def frame_rate(data: bytes) -> int:
    """Frames a second of the first video stream, rounded, at least 1.

    Raises:
        ValueError: if the bytes hold no readable video.
    """
    return max(1, round(float(_stream_facts(data)[2] or 8)))


def plays_in_browsers(data: bytes) -> bool:
    """Whether every current browser plays the video: MP4 of h264 in yuv420p, as `encode_mp4` writes it.

    Raises:
        ValueError: if the bytes hold no readable video.
    """
    return _stream_facts(data)[:2] == ("h264", "yuv420p") and data[4:8] == b"ftyp"


def _stream_facts(data: bytes) -> tuple[str, str | None, Fraction | None]:
    """Codec, pixel format and average rate of the first video stream."""
    import av

    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            return stream.codec_context.name, stream.pix_fmt, stream.average_rate
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"these {len(data)} bytes are no readable video: {error}") from error
