"""Look at what this machine can run, and say what to do about each miss: `examine`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory.config.settings import FactoryConfig
from factory.line.shared_memory import LOCAL_STORE_BYTES
from factory.stages.chain import pools_of, stages_of
from factory.stages.survey import how_to_get, look
from factory.weights.folder import resolved

SHARED_MEMORY = Path("/dev/shm")
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    cure: str = ""
    """What to do; empty where nothing is amiss."""


def examine(config: FactoryConfig, out: str | None = None) -> Iterator[Finding]:
    """Everything that a run with these settings wants of this machine, in the order in which it matters.

    Args:
        out: where the run would write, to be reached and listed.
    """
    on_gpu = any(pool.gpus > 0 for pool in pools_of(config).values())
    yield torch_build(on_gpu)
    yield from cards(on_gpu)
    yield kernels(on_gpu)
    yield masks_device(config.views.masks, on_gpu)
    yield from networks(config)
    yield shared_memory()
    yield numba_cache()
    yield storage(config, out)


def torch_build(on_gpu: bool) -> Finding:
    """Which torch it is, and for which CUDA."""
    import torch

    cuda = torch.version.cuda
    found = f"{torch.__version__}, " + (f"CUDA {cuda}" if cuda else "for the CPU")
    amiss = on_gpu and cuda is None
    return Finding(what="torch", found=found, cure="pip install torch from PyPI, whose Linux build has CUDA" * amiss)


def cards(on_gpu: bool) -> Iterator[Finding]:
    """GPUs with their free memory, and their driver."""
    import torch

    if not torch.cuda.is_available():
        cure = "run on a machine with an NVIDIA GPU, or with --preset pocket" if on_gpu else ""
        yield Finding(what="GPU", found="none", cure=cure)
        return
    yield driver()
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        amiss = free < 0.8 * total
        yield Finding(
            what=f"GPU {number}",
            found=f"{torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free",
            cure="other processes hold its memory: nvidia-smi names them" * amiss,
        )


def driver() -> Finding:
    """The version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return Finding(what="driver", found="unknown", cure="put nvidia-smi on the PATH, with which GPUs are watched")
    return Finding(what="driver", found=answer[0] if answer else "unknown")


def kernels(on_gpu: bool) -> Finding:
    """Whether gsplat's kernels are there, or can be built at first use."""
    from recon.rasterize.kernels import are_built, build_folder

    if not on_gpu:
        return Finding(what="gsplat kernels", found="not needed: the CPU renders")
    if are_built():
        return Finding(what="gsplat kernels", found=f"built, in {build_folder()}")
    if shutil.which("nvcc") or Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc").is_file():
        return Finding(what="gsplat kernels", found="to be built at first use, in minutes",
                       cure="python -m recon.rasterize.kernels builds them now")  # fmt: skip
    return Finding(what="gsplat kernels", found="not built, and there is no nvcc",
                   cure="take the image of infra/Dockerfile.gpu, or install the CUDA toolkit")  # fmt: skip


def masks_device(masker: str, on_gpu: bool) -> Finding:
    """Where masks by an ONNX file are computed."""
    from importlib.util import find_spec

    if masker == "pocket":
        return Finding(what="masks", found="embedded network")
    if find_spec("onnxruntime") is None:
        return Finding(what="masks", found="onnxruntime is not installed",
                       cure=f"pip install 'im3d-factory[{'paper-gpu' if on_gpu else 'paper'}]'")  # fmt: skip
    from recon.onnx_masker import offered_device

    device = offered_device("cuda" if on_gpu else "cpu")
    amiss = on_gpu and device == "cpu"
    cure = "pip uninstall onnxruntime, then pip install 'im3d-factory[paper-gpu]'" if amiss else ""
    return Finding(what="masks", found=f"{masker} by onnxruntime on {device}", cure=cure)


def networks(config: FactoryConfig) -> Iterator[Finding]:
    """Every network that the stages load, and whether the card holds it."""
    given = resolved(config)
    for need in look(stages_of(given.chain), given, pools_of(given)):
        if need.name == "GPU":
            continue
        cure = (how_to_get(need, config.weights) or need.problem or "") if need.problem else ""
        yield Finding(what=need.name, found=f"{need.address} {'missing' if need.problem else 'there'}", cure=cure)


def shared_memory() -> Finding:
    """Room for Ray's object store."""
    if not SHARED_MEMORY.is_dir():
        return Finding(what="/dev/shm", found="none: Ray's object store lies in /tmp")
    size = shutil.disk_usage(SHARED_MEMORY).free
    amiss = size < LOCAL_STORE_BYTES
    cure = "give the container more: docker run --shm-size 8g, or a memory volume at /dev/shm" if amiss else ""
    return Finding(what="/dev/shm", found=f"{size / GIB:.1f} GiB free", cure=cure)


def numba_cache() -> Finding:
    """Whether compiled CPU kernels can be kept, so that they are compiled once."""
    from recon.numba_cache import VARIABLE, choose_cache_folder

    choose_cache_folder(os.environ)
    place = Path(os.environ[VARIABLE])
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return Finding(what="numba cache", found=str(place))
    except OSError as error:
        return Finding(what="numba cache", found=f"{place} cannot be written to ({error.strerror})",
                       cure=f"set {VARIABLE} to a folder that can")  # fmt: skip


def storage(config: FactoryConfig, out: str | None) -> Finding:
    """Whether the place for the output answers."""
    from factory.storage.read_only import open_read_only

    if out is None:
        return Finding(what="storage", found="not looked at: name it by --out")
    try:
        next(iter(open_read_only(out, config.storage).keys("assets/")), None)
    except (OSError, ValueError, RuntimeError) as error:
        return Finding(what="storage", found=f"{out} does not answer", cure=str(error))
    return Finding(what="storage", found=f"{out} answers")
