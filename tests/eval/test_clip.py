"""CLIP scores against transformers on the same weights, and the pitfalls of preprocessing."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from eval.clip import Scorer
from eval.config import ClipConfig
from eval.small_clip import build_clip, build_tokenizer, save_clip

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 400, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"},
}
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "yellow": (230, 220, 40)}
CAPTIONS = [f"a {colour} {thing}" for colour in COLOURS for thing in ("car", "cup", "house")]


def likeness(scorer: Scorer, images: Sequence[np.ndarray], reference: np.ndarray) -> np.ndarray:
    """100 x cosine [B] of each picture with the picture `reference`."""
    return 100 * (scorer.embed_images(images) @ scorer.embed_images([reference])[0]).numpy()


def save(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    torch.manual_seed(seed)
    build_tokenizer(CAPTIONS, config, folder)
    save_clip(folder, build_clip(config), config, dtype=torch.float32)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("clip") / "tiny", CONFIG)


def pictures(count: int, height: int = 24, width: int = 24) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(row).resize((width, height), Image.Resampling.BICUBIC)) for row in coarse]


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's parameter names as transformers' `CLIPModel`s, attention's one matrix as three."""
    pairs = [
        ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
        ("visual.ln_pre.", "vision_model.pre_layrnorm."),
        ("visual.ln_post.", "vision_model.post_layernorm."),
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        ("transformer.resblocks.", "text_model.encoder.layers."),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("token_embedding.", "text_model.embeddings.token_embedding."),
        ("ln_final.", "text_model.final_layer_norm."),
    ]
    inner = {".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.", ".c_fc.": ".fc1.", ".c_proj.": ".fc2.",
             ".attn.out_proj.": ".self_attn.out_proj."}  # fmt: skip
    result = {"visual_projection.weight": state["visual.proj"].T, "text_projection.weight": state["text_projection"].T}
    for name, value in state.items():
        for old, new in pairs:
            if not name.startswith(old):
                continue
            full = new + name.removeprefix(old)
            for part, other in inner.items():
                full = full.replace(part, other)
            if ".attn.in_proj_" in full:
                kind = full.rpartition("_")[2]
                for letter, third in zip("qkv", value.chunk(3)):
                    result[full.replace(f"attn.in_proj_{kind}", f"self_attn.{letter}_proj.{kind}")] = third
            else:
                result[full] = value
            break
    return {name: value.contiguous() for name, value in result.items()} | {"logit_scale": state["logit_scale"]}


def transformers_scores(
    scorer: Scorer, images: list[np.ndarray], texts: list[str], folder: Path, act: str = "gelu"
) -> np.ndarray:
    """100 x cosine of every image with every text [I,T], by transformers, PIL and numpy alone."""
    from transformers import CLIPConfig, CLIPModel

    cut = CONFIG["model_cfg"]
    config = CLIPConfig(
        projection_dim=cut["embed_dim"],
        text_config={"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "vocab_size": 400, "max_position_embeddings": 16, "hidden_act": act, "eos_token_id": 2},
        vision_config={"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 16, "patch_size": 8, "hidden_act": act},
    )  # fmt: skip
    model = CLIPModel(config)
    missing, unexpected = model.load_state_dict(renamed(scorer.model.state_dict()), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    model.save_pretrained(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    rows = []
    for image in images:
        side = min(image.shape[:2])
        scaled = Image.fromarray(image).resize(
            (image.shape[1] * 16 // side, image.shape[0] * 16 // side), Image.Resampling.BICUBIC
        )
        left, top = round((scaled.width - 16) / 2), round((scaled.height - 16) / 2)
        pixels = np.asarray(scaled.crop((left, top, left + 16, top + 16))) / 255
        rows.append(((pixels - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(2, 0, 1))
    with torch.no_grad():
        output = model(input_ids=scorer.tokenizer(texts), pixel_values=torch.tensor(np.stack(rows)).float())
    seen, read = (functional.normalize(part, dim=-1) for part in (output.image_embeds, output.text_embeds))
    return 100 * (seen @ read.T).numpy()


@pytest.mark.parametrize(("height", "width"), [(24, 24), (40, 24), (16, 33)])
def test_scores_equal_transformers_on_the_same_weights(folder: Path, tmp_path: Path, height: int, width: int) -> None:
    scorer, images, texts = Scorer.load(folder), pictures(3, height, width), CAPTIONS[:3]
    expected = transformers_scores(scorer, images, texts, tmp_path)
    assert scorer.text_similarity(images, texts) == pytest.approx(np.diag(expected), abs=1e-4)
    assert scorer.name == "tiny"


def test_quickgelu_is_that_of_transformers(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["model_cfg"]["quick_gelu"] = True
    scorer = Scorer.load(save(tmp_path / "quick", config))
    images, texts = pictures(3), CAPTIONS[:3]
    quick = transformers_scores(scorer, images, texts, tmp_path / "a", act="quick_gelu")
    plain = transformers_scores(scorer, images, texts, tmp_path / "b", act="gelu")
    scores = scorer.text_similarity(images, texts)
    assert scores == pytest.approx(np.diag(quick), abs=1e-4)
    assert np.abs(scores - np.diag(plain)).max() > 0.01


def test_each_model_normalises_by_its_own_config(folder: Path, tmp_path: Path) -> None:
    images, texts = pictures(3), CAPTIONS[:3]
    others = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    (tmp_path / "other").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / "other" / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["preprocess_cfg"] |= others
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    mine, other = Scorer.load(folder), Scorer.load(tmp_path / "other")
    assert mine.revision == other.revision
    assert repr(mine.preprocess) != repr(other.preprocess)  # what the protocol states and hashes
    assert np.abs(mine.text_similarity(images, texts) - other.text_similarity(images, texts)).max() > 0.05
    square = [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)) / 255 for image in images]
    pixels = torch.tensor(np.stack([(p - others["mean"]) / others["std"] for p in square])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = functional.normalize(other.model.encode_image(pixels), dim=-1)
    assert torch.allclose(other.embed_images(images), expected, atol=1e-6)


def test_pictures_are_shrunk_smoothly_and_cut_in_the_middle(folder: Path) -> None:
    scorer = Scorer.load(folder)
    fine = np.zeros((128, 128, 3), np.uint8)
    fine[::8, ::8] = 255  # every eighth pixel: a shrink that drops pixels sees white, a smooth one nearly black
    grey = scorer.preprocess(Image.fromarray(fine)) * torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    grey = grey + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    assert grey.shape == (3, 16, 16)
    assert float(grey.max()) < 0.1
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    middle = scorer.embed_images([np.full((16, 16, 3), 255, np.uint8)])
    assert torch.allclose(scorer.embed_images([wide]), middle, atol=0.02)


def test_an_open_clip_architecture_by_name(folder: Path, tmp_path: Path) -> None:
    import open_clip

    cut = copy.deepcopy(CONFIG["model_cfg"]) | {"quick_gelu": True}
    cut["text_cfg"]["vocab_size"] = 49408
    (tmp_path / "im3d-tiny-quickgelu.json").write_text(json.dumps(cut))
    plain = {key: value for key, value in cut.items() if key != "quick_gelu"}
    (tmp_path / "im3d-tiny.json").write_text(json.dumps(plain))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(3)
    save_clip(tmp_path, build_clip({"model_cfg": cut}), {"model_cfg": cut}, dtype=torch.float32)
    weights = tmp_path / "model.safetensors"
    scorer = Scorer.load(("im3d-tiny-quickgelu", str(weights)))
    assert scorer.name == "im3d-tiny-quickgelu-model"
    images, texts = pictures(2), ["a photo of a cat", "zebra"]
    scores = scorer.text_similarity(images, texts)
    with torch.no_grad():
        seen = scorer.model.encode_image(torch.stack([scorer.preprocess(Image.fromarray(image)) for image in images]))
        read = scorer.model.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts, context_length=16))
    assert scores == pytest.approx((100 * functional.cosine_similarity(seen, read)).numpy(), abs=1e-4)
    gelu = Scorer.load(("im3d-tiny", str(weights))).text_similarity(images, texts)
    assert np.abs(gelu - scores).max() > 0.01  # the activation matters, so names must not be mixed
    with pytest.raises(ValueError, match=r"'openai' were trained with QuickGELU.*take im3d-tiny-quickgelu"):
        Scorer.load(("im3d-tiny", "openai"))


def test_similarities_to_images(folder: Path) -> None:
    scorer, images = Scorer.load(folder), pictures(40)
    scores = likeness(scorer, images, images[7])
    assert scores.shape == (40,)
    assert scores[7] == pytest.approx(100, abs=1e-3)
    assert np.delete(scores, 7).max() < 99.99
    assert likeness(scorer, images[7:9], images[7]) == pytest.approx(scores[7:9], abs=1e-3)
    opaque = [np.concatenate([image, np.full_like(image[..., :1], 9)], -1) for image in images[:3]]
    assert likeness(scorer, opaque, images[7]) == pytest.approx(scores[:3], abs=1e-3)


def test_a_trained_judge_survives_its_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(CAPTIONS, CONFIG, tmp_path / "judge")
    model = build_clip(CONFIG)
    images = torch.stack([torch.tensor(rgb).float().view(3, 1, 1).expand(3, 16, 16) / 127.5 - 1
                          for rgb in COLOURS.values()])  # fmt: skip
    tokens = tokenizer([f"a {colour} cup" for colour in COLOURS])
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        seen, read, scale = model(images, tokens)
        logits = scale * seen @ read.T
        loss = functional.cross_entropy(logits, torch.arange(4)) + functional.cross_entropy(logits.T, torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    neutral = CONFIG | {"preprocess_cfg": {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}}
    save_clip(tmp_path / "judge", model, neutral)
    scorer = Scorer.load(tmp_path / "judge")
    flat = [np.full((20, 20, 3), rgb, np.uint8) for rgb in COLOURS.values()]
    table = np.stack([scorer.text_similarity(flat, [f"a {colour} cup"] * 4) for colour in COLOURS])
    assert (table.argmax(1) == np.arange(4)).all()
    assert (tmp_path / "judge" / "model.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in model.parameters())


def test_tokens_are_lower_case_cut_and_ended(folder: Path) -> None:
    tokenizer = Scorer.load(folder).tokenizer
    tokens = tokenizer(["a red car", "A Red  Car", " ".join(["red"] * 50), "", "läuft 車"])
    end = int(tokens.max())
    assert tokens.shape == (5, 16)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens[0], tokenizer("a red car")[0])
    assert (tokens == end).sum(1).tolist() == [1] * 5
    assert tokens[2, -1] == end
    assert end < 400


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ClipConfig(model="ViT-Z-99"), "'ViT-Z-99' not found; give 'pocket', a folder"),
        (("ViT-B-32", "openai"), "take ViT-B-32-quickgelu"),
        (("ViT-B-32-quickgelu", "weights.pt"), "pickled; convert the weights to safetensors"),
    ],
)
def test_unusable_models_are_named(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scorer.load(spec)


def test_every_tag_that_open_clip_marks_wants_quickgelu() -> None:
    from open_clip.pretrained import _PRETRAINED

    marked = [(model, tag) for model, tags in _PRETRAINED.items() for tag, known in tags.items()
              if known.get("quick_gelu") and not model.endswith("-quickgelu")]  # fmt: skip
    assert {tag for _, tag in marked} > {"openai", "dfn5b", "metaclip_fullcc", "laion400m_e32"}
    for model, tag in marked:
        with pytest.raises(ValueError, match=rf"{tag}' were trained with QuickGELU.*take {model}-quickgelu"):
            Scorer.load((model, tag))


def test_a_prompt_that_is_cut_is_told(folder: Path) -> None:
    import open_clip

    scorer = Scorer.load(folder)
    room = scorer.tokenizer.context_length - 2
    texts = ["red " * room, "red " * (room + 1), "red " * 500, "", "a red car"]
    assert scorer.cut(texts) == [False, True, True, False, False]
    assert scorer.cut([]) == []
    scorer.tokenizer = open_clip.get_tokenizer("ViT-B-32")
    assert scorer.cut(["cat " * 75, "cat " * 76, "cat " * 999, ""]) == [False, True, True, False]


def test_a_score_is_the_same_alone_and_in_a_batch_of_33(folder: Path) -> None:
    for name in (folder, "pocket"):
        scorer, images = Scorer.load(name), pictures(33)
        together = scorer.text_similarity(images, CAPTIONS[:3] * 11)
        alone = [scorer.text_similarity([images[k]], [CAPTIONS[k % 3]])[0] for k in range(33)]
        assert together == pytest.approx(alone, abs=1e-3)


def test_unusable_input_is_named(folder: Path, tmp_path: Path) -> None:
    scorer = Scorer.load(folder)
    with pytest.raises(ValueError, match="3 images but 2 prompts"):
        scorer.text_similarity(pictures(3), ["a", "b"])
    with pytest.raises(ValueError, match="no images to score"):
        scorer.text_similarity([], [])
    with pytest.raises(ValueError, match=r"float32 .* expected uint8"):
        scorer.text_similarity([np.zeros((4, 4, 3), np.float32)], ["a"])
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        Scorer.load(tmp_path)
