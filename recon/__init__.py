"""Make 3D Gaussians of images; numba's kernels are kept where `choose_cache_folder` says."""

import os
import sys

from recon.numba_cache import choose_cache_folder

choose_cache_folder(os.environ)
if "numba" in sys.modules:  # it has read the environment already
    sys.modules["numba"].config.reload_config()
