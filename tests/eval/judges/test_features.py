"""Features of DINOv2 and CLIP folders: those of transformers, the same alone and among 33, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.judges.features import FeatureModel


def pictures(count: int, size: int = 40) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def test_dinov2_gives_its_class_token(dinov2: Path) -> None:
    from transformers import Dinov2Model

    found = FeatureModel.load(dinov2, "cpu").embed(pictures(3))
    images = [Image.fromarray(p).resize((32, 32), Image.Resampling.BICUBIC).crop((2, 2, 30, 30)) for p in pictures(3)]
    pixels = np.stack([np.asarray(image) for image in images]) / 255
    pixels = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    model = Dinov2Model.from_pretrained(dinov2).eval()
    with torch.no_grad():
        state = model(torch.tensor(pixels).permute(0, 3, 1, 2).float()).last_hidden_state[:, 0]
    assert found == pytest.approx(state.numpy(), abs=0.05)  # their processor shrinks floats, PIL bytes
    assert np.abs(found[0] - found[1]).max() > 0.2


def test_clip_gives_its_projection(clip: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPModel

    found = FeatureModel.load(clip, "cpu").embed(pictures(3))
    inputs = CLIPImageProcessor.from_pretrained(clip)(images=pictures(3), return_tensors="pt")
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        hidden = model.vision_model(**inputs).pooler_output
        assert found == pytest.approx(model.visual_projection(hidden).numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_features_are_the_same_alone_and_among_33(kind: str, request: pytest.FixtureRequest) -> None:
    model = FeatureModel.load(request.getfixturevalue(kind), "cpu")
    alone = np.concatenate([model.embed([picture]) for picture in pictures(33)])
    assert model.embed(pictures(33)) == pytest.approx(alone, abs=1e-3)
    assert model.embed([]).shape == (0, 0)


def test_folders_that_do_not_serve_are_refused(dinov2: Path, qwen2_vl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a qwen2_vl model; features are taken of: dinov2, clip"):
        FeatureModel.load(qwen2_vl, "cpu")
    for name, message in [
        ("preprocessor_config.json", "no complete processor"),
        ("config.json", "config.json is miss"),
    ]:
        shutil.copytree(dinov2, tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(ValueError, match=message):
            FeatureModel.load(tmp_path / name, "cpu")
    shutil.copytree(dinov2, tmp_path / "deeper")
    config = json.loads((dinov2 / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "deeper" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"deeper lacks \d+ parameters"):
        FeatureModel.load(tmp_path / "deeper", "cpu")
