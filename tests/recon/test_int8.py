"""Weights in 8 bits: the error is bounded, a folder stays loadable, and a second time changes nothing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.pocket.load import load_networks
from recon.int8 import SCALE, dequantized, main, quantized, read_state
from recon.user_error import UserError


def test_the_error_of_a_weight_is_at_most_half_a_step_of_its_row():
    torch.manual_seed(0)
    rows = torch.randn(64, 3, 5, 5) * torch.logspace(-6, 3, 64)[:, None, None, None]
    rows[5] = 0
    stored = quantized({"conv.weight": rows, "conv.bias": torch.tensor([0.5, -3.0]), "steps": torch.tensor(7)})
    assert stored["conv.weight"].dtype == torch.int8
    assert stored["conv.bias"].dtype == torch.float16
    read = dequantized(stored)
    assert read.keys() == {"conv.weight", "conv.bias", "steps"}
    error = (read["conv.weight"] - rows).abs().amax((1, 2, 3))
    assert (error <= rows.abs().amax((1, 2, 3)) / 127 * 0.5001).all()
    assert not read["conv.weight"][5].any()
    assert read["conv.bias"].tolist() == [0.5, -3.0]
    assert read["steps"].item() == 7


def test_folders_in_8_bits_load_as_before(tiny_pocket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "small"
    assert (
        main([str(out), *(str(tiny_pocket / name) for name in ("video", "image", "autoencoder", "text_encoder"))]) == 0
    )
    assert capsys.readouterr().out.count(" before") == 4
    before, after = (load_networks(folder / "video") for folder in (tiny_pocket, out))
    for name in ("unet", "text", "autoencoder"):
        pairs = zip(before[name].state_dict().items(), after[name].state_dict().values(), strict=True)
        for (key, wanted), found in pairs:
            torch.testing.assert_close(found, wanted, atol=0.01 * float(wanted.abs().max()) + 1e-6, rtol=0, msg=key)
    stored = load_file(out / "video" / "diffusion_pytorch_model.safetensors")
    assert any(name.endswith(SCALE) for name in stored)
    assert main([str(tmp_path / "again"), str(out / "video")]) == 0
    again = load_file(tmp_path / "again" / "video" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def test_a_folder_must_hold_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="holds 0 safetensors files"):
        read_state(tmp_path)
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match="holds 2 safetensors files"):
        read_state(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert "give a folder to write into" in capsys.readouterr().err
