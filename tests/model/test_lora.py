"""LoRA merged at load: by its formula, by the library's names, and refused where it belongs to another model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.config import VideoConfig
from model.lora import merge
from model.video import check_lora
from model.wan import WanVideoModel
from tests.model.test_wan import folders, load, picture  # noqa: F401 (a fixture)

alias = WanVideoModel.lora_name


def network(kind: str = "2.1") -> Any:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_dim": 16, "added_kv_proj_dim": 24} if kind == "2.1" else {}
    return WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16,
                                 text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2, **sizes).eval()  # fmt: skip


def original(
    rank: int = 3, halves: tuple[str, str] = ("lora_A", "lora_B"), alpha: float | None = None
) -> dict[str, Any]:
    """A LoRA of every linear layer of the blocks, as Wan's own code names them."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for block in range(2):
        wide = [f"self_attn.{part}" for part in "qkvo"] + [f"cross_attn.{part}" for part in "qkvo"]
        layers = dict.fromkeys([*wide, "cross_attn.k_img", "cross_attn.v_img"], (24, 24))
        for layer, (inputs, outputs) in (layers | {"ffn.0": (24, 32), "ffn.2": (32, 24)}).items():
            name = f"diffusion_model.blocks.{block}.{layer}"
            made[f"{name}.{halves[0]}.weight"] = torch.randn(rank, inputs, generator=generator)
            made[f"{name}.{halves[1]}.weight"] = torch.randn(outputs, rank, generator=generator)
            if alpha is not None:
                made[f"{name}.alpha"] = torch.tensor(alpha)
    return made


def changes(lora: dict[str, torch.Tensor], scale: float = 1.0, kind: str = "2.1") -> dict[str, torch.Tensor]:
    before, after = network(kind), network(kind)
    merge(after, lora, scale, alias, "lora.safetensors")
    old = dict(before.named_parameters())
    return {name: (p - old[name]).detach() for name, p in after.named_parameters() if not torch.equal(p, old[name])}


@pytest.mark.parametrize("alpha", [None, 1.5])
def test_weights_change_by_the_formula_under_the_librarys_names(alpha: float | None) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    lora = original(alpha=alpha, halves=("lora_down", "lora_up") if alpha else ("lora_A", "lora_B"))
    answer = _convert_non_diffusers_wan_lora_to_diffusers({name: value.clone() for name, value in lora.items()})
    if alpha:  # the library leaves the alphas of k_img and v_img of this form unread
        answer = {name: value for name, value in answer.items() if "add_" not in name}
    found = changes(lora)
    names = {name.removeprefix("transformer.").rsplit(".lora_", 1)[0] for name in answer}
    assert names <= {name.removesuffix(".weight") for name in found}
    assert len(found) == 2 * 12
    for name in names:
        product = answer[f"transformer.{name}.lora_B.weight"] @ answer[f"transformer.{name}.lora_A.weight"]
        assert torch.allclose(found[f"{name}.weight"], product, atol=1e-5)


def test_scale_and_alpha_multiply() -> None:
    plain, twice, half = changes(original()), changes(original(), 2.0), changes(original(alpha=1.5))
    for name in plain:
        assert torch.allclose(twice[name], 2 * plain[name], atol=1e-5)
        assert torch.allclose(half[name], 0.5 * plain[name], atol=1e-5)


def test_other_forms_of_the_same_lora_do_the_same() -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_musubi_wan_lora_to_diffusers

    lora, expected = original(halves=("lora_down", "lora_up"), alpha=3.0), changes(original())
    kohya = {}
    for name, value in lora.items():
        layer, _, rest = name.removeprefix("diffusion_model.").partition(".lora_")
        layer, rest = (layer, f"lora_{rest}") if rest else (layer.removesuffix(".alpha"), "alpha")
        kohya[f"lora_unet_{layer.replace('.', '_')}.{rest}"] = value
    for other in (kohya, _convert_musubi_wan_lora_to_diffusers({k: v.clone() for k, v in kohya.items()})):
        found = changes(other)
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)


def test_full_differences_are_added() -> None:
    change = {
        "diffusion_model.blocks.0.norm3.diff": torch.ones(24),
        "diffusion_model.blocks.1.ffn.0.diff_b": torch.ones(32),
    }
    found = changes(change, 0.5)
    assert {name: float(value.mean()) for name, value in found.items()} == pytest.approx(
        {"blocks.0.norm2.weight": 0.5, "blocks.1.ffn.net.0.proj.bias": 0.5}
    )


def test_keys_of_an_image_branch_are_left_out_where_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    found = changes(original(), kind="2.2")
    assert len(found) == 2 * 10
    assert "8 keys of an image branch that this network has not" in caplog.text


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({f"lora_unet_down_blocks_{k}.lora_up.weight": torch.ones(1, 1) for k in range(5)},
         r"has lora_unet_down_blocks_0\.lora_up\.weight, .*, .* and 2 more, which are no LoRA keys"),
        ({}, "has no keys, which are no LoRA keys of this network"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 24)}, "one half of the LoRA of blocks.0"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 40),
          "diffusion_model.blocks.0.self_attn.q.lora_B.weight": torch.ones(40, 2)},
         r"changes blocks\.0\.attn1\.to_q by \(40, 40\) numbers and the network has \(24, 24\)"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 24),
          "diffusion_model.blocks.0.self_attn.q.lora_B.weight": torch.ones(24, 3)}, "ranks 2 and 3"),
    ],
)  # fmt: skip
def test_loras_of_other_models_are_refused(lora: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changes(lora)


def test_the_preflight_refuses_the_same_without_reading_weights(
    folders: dict[str, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("safetensors.torch.load_file", lambda file: pytest.fail(f"{file} is read"))
    file = tmp_path / "turn.safetensors"
    settings = VideoConfig(model=str(folders["2.1"]), lora=str(file))
    save_file(original(alpha=2.0), file)
    check_lora(settings)
    save_file(original() | {"unet.down.0.lora_A.weight": torch.ones(1, 1)}, file)
    with pytest.raises(ValueError, match=r"unet\.down\.0\.lora_A\.weight, which are no LoRA keys of this network"):
        check_lora(settings)
    wide = {name: torch.cat([value, value], 1) if "lora_A" in name else value for name, value in original().items()}
    save_file(wide, file)
    with pytest.raises(ValueError, match="it is for another size or family"):
        check_lora(settings)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        check_lora(settings)


def test_a_lora_enters_frames_revision_and_licence(folders: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    save_file(original(), tmp_path / "turn.safetensors")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    base = load(folders["2.1"])
    model = load(folders["2.1"], lora=str(tmp_path / "turn.safetensors"), lora_scale=0.5)
    assert model.license == "apache-2.0 + mit"
    assert model.revision.startswith(f"{base.revision} + sha256:")
    frames = [each.generate(picture(), ["a"], [1]).astype(int) for each in (base, model)]
    assert np.abs(frames[0] - frames[1]).max() > 2
    assert load(folders["2.1"], lora=str(tmp_path)).revision == model.revision
    both = f"{tmp_path / 'turn.safetensors'},{tmp_path / 'turn.safetensors'}"
    assert load(folders["2.2"], lora=both).license == "apache-2.0 + mit + mit"
    with pytest.raises(ValueError, match="names 2 files and the model has 1 networks"):
        load(folders["2.1"], lora=both)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("{}/turn.pt", "is no safetensors file; pickled weights are not read"),
        ("{}/none.safetensors", "is no file; give a file, a folder with one"),
        ("{}", r"holds 2 \*\.safetensors; name the one file"),
        ("{}/cut.safetensors", "is no whole safetensors file"),
    ],
)
def test_bad_files_are_named(lora: str, message: str, folders: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    for name in ("turn.pt", "a.safetensors", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match=message):
        load(folders["2.1"], lora=lora.format(tmp_path))
