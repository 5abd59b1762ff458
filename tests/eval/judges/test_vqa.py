"""The VQA judge on a Qwen2-VL of random weights: its probability, its batches, and folders that lack a file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.judges.judge import Subject
from eval.judges.vqa import TEMPLATE, VqaJudge

PROMPT = "a red car"


@pytest.fixture(scope="module")
def judge(qwen2_vl: Path) -> VqaJudge:
    return VqaJudge.load(qwen2_vl, "cpu")


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_score_is_the_probability_of_yes(judge: VqaJudge) -> None:
    views = pictures(3)
    found = judge.views([Subject(prompt=PROMPT, seen={"renders": views})])[0]
    question = f"user: <|vision_start|><|image_pad|><|vision_end|>{TEMPLATE.format(PROMPT)}<|im_end|>assistant: "
    words = {judge.processor.tokenizer.decode([token]).strip().lower() for token in judge.answers}
    assert words == {"yes"}
    for view, score in zip(views, found["vqa_tiny-qwen_renders"]):
        inputs = judge.processor(text=question, images=Image.fromarray(view), return_tensors="pt")
        with torch.no_grad():
            logits = judge.model(**inputs).logits[0, -1].double().numpy()
        shares = np.exp(logits - logits.max())
        assert score == pytest.approx(shares[judge.answers].sum() / shares.sum(), abs=1e-6)
    assert np.ptp(found["vqa_tiny-qwen_renders"]) > 1e-2 * found["vqa_tiny-qwen_renders"].mean()
    assert judge.statement()["question"] == TEMPLATE


def test_a_score_is_the_same_alone_and_among_33(judge: VqaJudge) -> None:
    views = pictures(33)
    prompts = [PROMPT if k % 2 else "a teapot of blue china" for k in range(33)]
    together = judge.views([Subject(prompt=text, seen={"renders": views[k : k + 1]}) for k, text in enumerate(prompts)])
    one = judge.views([Subject(prompt=PROMPT, seen={"renders": views, "frames": pictures(2, 48)})])[0]
    alone = [judge.views([Subject(prompt=PROMPT, seen={"renders": view[None]})])[0] for view in views]
    assert one["vqa_tiny-qwen_renders"] == pytest.approx([x["vqa_tiny-qwen_renders"][0] for x in alone], rel=1e-3)
    odd = [found["vqa_tiny-qwen_renders"][0] for found in together[1::2]]
    assert one["vqa_tiny-qwen_renders"][1::2] == pytest.approx(odd, rel=1e-3)
    assert len(one["vqa_tiny-qwen_frames"]) == 2


def test_without_prompt_there_is_no_score(judge: VqaJudge) -> None:
    assert judge.views([Subject(seen={"renders": pictures(1)}), Subject(prompt=PROMPT)]) == [{}, {}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"config\.json is missing; give a vision-language model as transformers saves it"),
        ("model.safetensors", r"holds no \.safetensors file"),
        ("chat_template.jinja", r"has no chat template; put its chat_template\.jinja beside"),
        ("tokenizer.json", "has no complete processor: "),
        ("processor_config.json", "has no complete processor: "),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(qwen2_vl: Path, tmp_path: Path, name: str, message: str) -> None:
    shutil.copytree(qwen2_vl, tmp_path / "less")
    (tmp_path / "less" / name).unlink()
    with pytest.raises(ValueError, match=message):
        VqaJudge.load(tmp_path / "less", "cpu")


def test_weights_are_never_made_up(qwen2_vl: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen2_vl, tmp_path / "less")
    state = load_file(qwen2_vl / "model.safetensors")
    lost = sorted(state)[7]
    save_file({k: v for k, v in state.items() if k != lost}, tmp_path / "less" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"less lacks 1 parameters, .* first; give the whole checkpoint"):
        VqaJudge.load(tmp_path / "less", "cpu")
    with pytest.raises(ValueError, match="gone is no folder; give a vision-language model"):
        VqaJudge.load(tmp_path / "gone", "cpu")
