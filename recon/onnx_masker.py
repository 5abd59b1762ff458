"""Cut objects out with IS-Net or U²-Net(p) as an ONNX file: `OnnxMasker`, a `recon.masks.Masker`.

Scaling in and out is that of `rembg`, so that masks equal its own within rounding; but the session runs on the given
device and number of threads, and takes as many pictures at once as the file allows (those of `rembg` take one).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.user_error import UserError

U2NETP = Path(__file__).parent / "weights" / "u2netp"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CENTRED = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
ISNET_SIDE = 1024
"""Networks of this side are IS-Nets and want colours about 0; U²-Nets, of 320, want ImageNet's mean and deviation."""


class OnnxMasker:
    """A segmentation network by file.

    Args:
        path: an .onnx file, or a folder that holds one.
        device: "cpu" or "cuda", which needs onnxruntime-gpu in the place of onnxruntime.
        threads: of the processor, >= 1; None leaves the number to onnxruntime.
        batch: pictures at once, >= 1, where the file does not fix their number.

    Raises:
        UserError: if there is no such file or device, onnxruntime is missing, or the network is of another kind.
    """

    def __init__(self, path: Path | str = U2NETP, device: str = "cpu", threads: int | None = None, batch: int = 8):
        self.path = _file(Path(path))
        data = self.path.read_bytes()
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._session = _session(data, self.path, device, threads)
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if (
            len(inputs) != 1
            or len(shape) != 4
            or shape[1] != 3
            or shape[2] != shape[3]
            or not isinstance(shape[2], int)
        ):
            raise UserError(f"{self.path} takes {[i.shape for i in inputs]}; give a masker of one input [B,3,S,S]")
        self.side, self._input = shape[2], inputs[0].name
        self._output = self._session.get_outputs()[0].name
        self.batch = shape[0] if isinstance(shape[0], int) else batch

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Coverage uint8 [N,H,W] of pictures uint8 [N,H,W,3]."""
        found = []
        for start in range(0, len(frames), self.batch):
            part = frames[start : start + self.batch]
            inputs = np.stack([self._scaled(frame) for frame in part])
            short = self.batch - len(inputs)
            inputs = np.concatenate([inputs, np.zeros((short, *inputs.shape[1:]), np.float32)]) if short else inputs
            (logits,) = self._session.run([self._output], {self._input: inputs})
            found += [_mask(one[0], frame.shape[:2]) for one, frame in zip(np.asarray(logits), part, strict=False)]
        return np.stack(found) if found else np.zeros(frames.shape[:3], np.uint8)

    def _scaled(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A picture [H,W,3] as the network wants it, [3,S,S]."""
        small = Image.fromarray(frame[..., :3]).resize((self.side, self.side), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, np.float64)
        mean, deviation = CENTRED if self.side == ISNET_SIDE else IMAGENET
        return ((pixels / max(pixels.max(), 1e-6) - mean) / deviation).transpose(2, 0, 1).astype(np.float32)


def offered_device(wanted: str) -> str:
    """`wanted`, "cpu" or "cuda"; "cpu" where the installed onnxruntime computes on no GPU.

    That CUDA is compiled in is not believed: its libraries must load, so the embedded network is opened there.
    """
    import onnxruntime

    if wanted != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "cpu" if wanted == "cuda" else wanted
    try:
        OnnxMasker(U2NETP, "cuda")
    except UserError:
        return "cpu"
    return "cuda"


def _mask(output: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A network's output [S,S], stretched to 0..1, as coverage uint8 [H,W]."""
    low, high = output.min(), output.max()
    stretched = (output - low) / (high - low) if high > low else np.zeros_like(output)
    mask = Image.fromarray((stretched * 255).astype(np.uint8))
    return np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def _file(path: Path) -> Path:
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path] if path.is_file() else []
    if len(files) != 1:
        raise UserError(f"{path} holds {len(files)} .onnx files; name one, for example isnet-general-use.onnx")
    return files[0]


def _session(data: bytes, path: Path, device: str, threads: int | None):
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"masks by {path.name} need the package onnxruntime: pip install 'im3d-factory[paper]', with CUDA pip "
            "install onnxruntime-gpu; or set the masker to pocket"
        ) from error
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device, "")
    if wanted not in onnxruntime.get_available_providers():
        raise UserError(f"device is {device!r}, which onnxruntime does not offer here; use 'cpu', or for 'cuda' pip "
                        "install onnxruntime-gpu in the place of onnxruntime")  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # of CUDA and cuDNN, as torch's wheels bring them
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[wanted])
    except Exception as error:  # onnxruntime's own classes share no public base
        raise UserError(f"{path} is no ONNX network that onnxruntime can load: {error}") from error
    if wanted not in session.get_providers():
        raise UserError(f"onnxruntime fell back to {session.get_providers()}; its CUDA libraries do not load here")
    return session
