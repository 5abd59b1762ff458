"""Tiny random checkpoints of real classes, as transformers saves them."""

from pathlib import Path

import pytest
import torch

from recon.torchvision_shim import import_torchvision

SPECIAL = ["<|pad|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def save_qwen2_vl(folder: Path) -> Path:
    """A Qwen2-VL of two layers with the vocabulary of bytes and a few words."""
    import_torchvision()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(["Yes yes No no Yes yes"] * 50, trainer)
    ids = {name: words.token_to_id(name) for name in SPECIAL}
    extra = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<|pad|>", eos_token="<|im_end|>", extra_special_tokens=extra
    )
    pictures = Qwen2VLImageProcessor(patch_size=8, merge_size=2, min_pixels=256, max_pixels=4096)
    videos = Qwen2VLVideoProcessor(patch_size=8, merge_size=2)
    Qwen2VLProcessor(pictures, tokenizer, videos, chat_template=CHAT).save_pretrained(folder)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": words.get_vocab_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # random networks of this size answer all pictures alike
    model.save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2 of two layers and eight channels."""
    import_torchvision()
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**size, initializer_range=0.5)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP of two layers, its pictures as eight numbers."""
    import_torchvision()
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = size | {"image_size": 28, "patch_size": 14, "initializer_range": 0.5}
    config = CLIPConfig(projection_dim=8, text_config=size | {"vocab_size": 64}, vision_config=vision)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen2-VL."""
    return save_qwen2_vl(tmp_path_factory.mktemp("models") / "tiny-qwen")


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2."""
    return save_dinov2(tmp_path_factory.mktemp("models") / "tiny-dino")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP of transformers."""
    return save_clip(tmp_path_factory.mktemp("models") / "tiny-clip")
