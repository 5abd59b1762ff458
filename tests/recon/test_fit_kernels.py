import threading

import numpy as np
import pytest
from filelock import FileLock

from recon import fit_kernels
from recon.cameras import OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig
from recon.fit import fit
from recon.fit_kernels import counted, load_fit_kernels


@pytest.mark.parametrize("method", ["paper", "mcmc"])
def test_a_fit_comes_to_no_further_kernel(method):
    config = FitConfig(iterations=9, num_points=100, coarse_iterations=3, densify=DensifyConfig(method=method, every=4))
    loaded = load_fit_kernels(config)
    assert sum(loaded) >= 10
    frames = np.full((3, 64, 64, 4), 255, np.uint8)
    frames[:, :20] = 0
    fit(frames, None, turntable(0.1, 64, OrbitConfig(num_views=3)), config)
    assert counted() == loaded


def test_one_process_loads_while_the_others_wait(tmp_path, monkeypatch):
    loaded = threading.Event()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(fit_kernels, "_fit", lambda config: loaded.set())
    with FileLock(tmp_path / "compiling.lock"):
        waiting = threading.Thread(target=load_fit_kernels, args=(FitConfig(device="cpu"),))
        waiting.start()
        assert not loaded.wait(0.3)
    assert loaded.wait(10)
    waiting.join()


def test_nothing_is_loaded_for_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(fit_kernels, "_fit", lambda config: pytest.fail("a fit on the CPU"))
    load_fit_kernels(FitConfig(device="cuda"))
