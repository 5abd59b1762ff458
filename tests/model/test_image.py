"""Any text-to-image pipeline of diffusers, on a tiny random SDXL."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.image import ImageConfig, load_image_model


def load(folder: Path, **settings: Any) -> Any:
    return load_image_model(ImageConfig(model=str(folder), device="cpu", **{"steps": 3, **settings}))


def test_images_follow_prompt_and_seed_alone(tiny_sdxl: Path) -> None:
    model = load(tiny_sdxl)
    images = model.generate(["a red car", "a blue car", "a red car"], [5, 6, 7])
    assert images.dtype == np.uint8
    assert images.shape == (3, 16, 16, 3)
    assert np.array_equal(images, model.generate(["a red car", "a blue car", "a red car"], [5, 6, 7]))
    alone = model.generate(["a blue car"], [6])
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1
    assert np.abs(images[0].astype(int) - images[2]).mean() > 5  # another seed
    assert np.abs(model.generate(["zebra"], [5])[0].astype(int) - images[0]).max() > 0  # another prompt


def test_images_are_decoded_one_at_a_time(tiny_sdxl: Path) -> None:
    model = load(tiny_sdxl, steps=1)
    seen: list[int] = []
    decoder = model.pipeline.vae.decoder
    decoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert len(model.generate(["a cup", "a car", "a dog"], [0, 1, 2])) == 3
    assert seen == [1, 1, 1]


def test_evaluations_are_counted(tiny_sdxl: Path) -> None:
    model = load(tiny_sdxl, steps=4, guidance_scale=5.0)
    model.generate(["a", "b"], [1, 2])
    assert model.num_evaluations == {"steps": 4, "forwards": 8}
    model = load(tiny_sdxl, steps=4, guidance_scale=1.0)
    model.generate(["a", "b"], [1, 2])
    assert model.num_evaluations == {"steps": 4, "forwards": 4}


def test_size_and_template(tiny_sdxl: Path) -> None:
    assert load(tiny_sdxl, size=40).generate(["a"], [1]).shape == (1, 40, 40, 3)
    templated = load(tiny_sdxl, template="{prompt} on white").generate(["a {cup}"], [1])
    assert np.array_equal(templated, load(tiny_sdxl).generate(["a {cup} on white"], [1]))


def test_the_solver_is_dpm_and_the_card_is_read(tiny_sdxl: Path) -> None:
    model = load(tiny_sdxl)
    assert type(model.pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert model.pipeline.scheduler.config["beta_schedule"] == "scaled_linear"
    assert model.revision.startswith("sha256:")
    assert model.license == "openrail++"


def test_weights_at_an_address_are_fetched_once_a_machine(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import fs

    from model import weights

    monkeypatch.setattr(weights, "_CACHE", tmp_path / "cache")
    source, copies, copy_files = tmp_path / "bucket", [], fs.copy_files
    shutil.copytree(tiny_sdxl, source)

    def slowly(path: str, target: str, *rest: Any) -> None:
        copies.append(target)
        copy_files(path, target, *rest)
        time.sleep(0.2)

    monkeypatch.setattr(fs, "copy_files", slowly)
    with ThreadPoolExecutor(4) as actors:
        folders = set(actors.map(lambda _: weights.locate(source.as_uri(), "image"), range(4)))
    assert (len(folders), len(copies)) == (1, 1)
    assert weights.revision_of(folders.pop()) == weights.revision_of(tiny_sdxl)

    def broken(path: str, target: str, *rest: Any) -> None:
        Path(target, "model_index.json").write_text("{}")
        raise OSError("cut off")

    next(source.rglob("*.safetensors")).write_bytes(b"other weights")
    monkeypatch.setattr(fs, "copy_files", broken)
    with pytest.raises(RuntimeError, match="cut off"):
        weights.locate(source.as_uri(), "image")
    monkeypatch.setattr(fs, "copy_files", slowly)
    assert weights.revision_of(weights.locate(source.as_uri(), "image")) == weights.revision_of(source)
    with pytest.raises(RuntimeError, match="cannot read model weights at file:///nowhere"):
        weights.locate("file:///nowhere/at/all", "image")


def test_a_pocket_generator_at_an_address_brings_what_lies_beside_it(
    tiny_pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import weights

    monkeypatch.setattr(weights, "_CACHE", tmp_path / "cache")
    folder = weights.locate(f"{tiny_pocket.as_uri()}/image/", "image")
    assert folder.name == "image"
    for part in ("image", "autoencoder", "text_encoder"):
        assert weights.revision_of(folder.parent / part) == weights.revision_of(tiny_pocket / part)


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [([], [], "batch is empty"), (["a", "b"], [1], "2 prompts but 1 seeds")],
)
def test_uneven_batches_are_refused(tiny_sdxl: Path, prompts: list[str], seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tiny_sdxl).generate(prompts, seeds)


def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA GPU is visible: run it on a machine with an NVIDIA GPU"):
        load_image_model(ImageConfig(model="some/model", device="cuda"))
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.download", lambda *a, **k: (_ for _ in ()).throw(OSError("offline"))
    )
    with pytest.raises(RuntimeError, match=r"weights of some/model .* run `hf download some/model`"):
        load_image_model("some/model")
    with pytest.raises(ValueError, match="is not a folder; give 'pocket'"):
        load_image_model("./no/such/folder")
    with pytest.raises(ValueError, match=r"neither config\.json nor model_index\.json"):
        load_image_model(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    (tmp_path / "model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="pickled weights are not read"):
        load_image_model(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"image\.steps is 0; it must lie in \[1, 1000\]"),
        ({"guidance_scale": -1.0}, r"image\.guidance_scale is -1\.0"),
        ({"size": 4}, r"image\.size is 4"),
        ({"template": "a cat"}, "must contain {prompt}"),
        ({"model": ""}, r"image\.model is empty"),
    ],
)
def test_bad_settings_name_the_limit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageConfig(**settings)


def test_weights_that_are_nowhere_are_named_in_a_process_of_their_own():
    code = "from model.weights import locate; locate('nobody/nothing', 'image')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 1
    assert "the weights of nobody/nothing are no local folder" in done.stderr.splitlines()[-1]
