import pytest
import torch

from recon.device import device_of


def test_auto_takes_what_there_is():
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of("cpu").type == "cpu"


def test_other_names_and_a_missing_gpu_are_sentences(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="available: auto, cpu, cuda"):
        device_of("gpu")
    with pytest.raises(ValueError, match="torch finds no GPU"):
        device_of("cuda")
