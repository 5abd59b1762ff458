"""Make 3D Gaussians of images; numba's kernels are cached where `choose_cache_folder` says."""

import os
from pathlib import Path

from recon.numba_cache import choose_cache_folder

choose_cache_folder(Path(__file__).parent, os.environ)
