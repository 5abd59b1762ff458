import subprocess
import sys

import pytest
import torch

from recon.torchvision_shim import import_torchvision


def test_networks_of_torchvision_run_in_a_fresh_process():
    code = (
        "from recon.torchvision_shim import import_torchvision as f\n"
        "assert f() is f()\n"
        "import torch, torchvision, lpips\n"
        "assert torchvision.models.alexnet().features(torch.zeros(1, 3, 64, 64)).shape == (1, 256, 1, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_declared_operators_compute_or_refuse_but_never_return_garbage():
    torchvision = import_torchvision()
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    try:
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.1]), 0.5)
    except (RuntimeError, NotImplementedError):
        return
    assert kept.tolist() == [0]


def test_other_import_errors_pass_through(monkeypatch):
    def broken(name: str):
        raise RuntimeError("another fault")

    monkeypatch.setattr("recon.torchvision_shim.importlib.import_module", broken)
    with pytest.raises(RuntimeError, match="another fault"):
        import_torchvision()
