"""Shards in, weights out: every target of `im3d finetune`, a few steps each, and what is refused before the first."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from factory.storage.local import LocalStore
from factory.storage.store import open_store
from factory.training.encode import generator_of_copy
from factory.training.finetune import driver, prepare
from factory.training.finetune.recorder import Recorder, read_log
from factory.training.finetune.worker import train_worker
from factory.training.shards.draw_order import Shards, plain_batches
from factory.training.shards.index import Chunk, read_index
from jobs.encode import main as encode
from jobs.finetune import main
from model.checkpoints import Checkpoints
from model.config import Drawing, TrainConfig
from model.parallel import World
from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.data import draw
from model.pocket.unet import PocketUNet
from recon.user_error import UserError


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain loop in the place of Ray Train, which has tests of its own."""

    def fit(run) -> None:
        try:
            train_worker(run, World(), lambda start, share: plain_batches(run.reader(), share.micro, start))
        except FloatingPointError as error:
            raise UserError(str(error)) from error

    monkeypatch.setattr(driver, "fit", fit)


@pytest.fixture
def taught(tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny sentence encoder in the place of the package's."""
    monkeypatch.setattr("model.pocket.sentence_teacher.teacher_folder", lambda: tiny_teacher)
    monkeypatch.setattr("factory.training.finetune.prepare.find_spec", lambda name: name)


def finetune(target: str, shards: Path, weights: Path, out: Path, *flags: str, steps: int = 2) -> int:
    common = ["--target", target, "--shards", str(shards), "--weights", str(weights), "--out", str(out)]
    train = ["--train.num-steps", str(steps), "--train.log-every", "1", "--train.precision", "float32"]
    return main([*common, *train, *flags])


@pytest.mark.usefixtures("taught")
def test_generators_build_on_each_other(tmp_path, tiny_shards, monkeypatch):
    monkeypatch.setattr("model.pocket.recipes.WIDTHS", (32, 64))
    weights, before = tmp_path / "weights", {}
    for target in ("autoencoder", "text", "image", "video", "temporal"):
        assert finetune(target, tiny_shards, weights, tmp_path / target, "--train.total-batch", "4") == 0
        if target == "video":
            before = load_file(weights / "video" / "diffusion_pytorch_model.safetensors")
    after = load_file(weights / "video" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all("temporal" in name for name in changed)
    assert PocketUNet.from_pretrained(weights / "video").config["temporal"] is True
    store = LocalStore(str(tmp_path / "image"))
    assert [row["step"] for row in read_log(store)] == [1, 2]
    kept = Checkpoints(store).load(2).state["average"]
    assert not any(name.startswith("text.") for name in kept)
    shown = load_file(weights / "image" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(shown["conv_in.bias"], kept["unet.conv_in.bias"].half())


@pytest.mark.usefixtures("taught")
@pytest.mark.parametrize("target", ["elevation", "mask", "text", "clip"])
def test_text_judges_and_estimators_learn(tmp_path, tiny_shards, target, monkeypatch):
    monkeypatch.setattr("factory.training.finetune.judge_recipe.NUM_VIEWS", 64)
    steps = {"elevation": 40, "mask": 20, "text": 20, "clip": 6}[target]
    flags = ["--train.warmup-steps", "10", "--train.save-every", "100"]
    flags += ["--train.total-batch", "16" if target in ("text", "clip") else "4"]
    assert finetune(target, tiny_shards, tmp_path, tmp_path / "run", *flags, steps=steps) == 0
    folder = "text_encoder" if target == "text" else target
    assert (tmp_path / folder / "model.safetensors").is_file()
    losses = [row["loss"] for row in read_log(LocalStore(str(tmp_path / "run")))]
    assert len(losses) == steps
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    again = [*flags, "--train.from-weights", "--train.learning-rate", "1e-9"]
    before = load_file(tmp_path / folder / "model.safetensors")
    assert finetune(target, tiny_shards, tmp_path, tmp_path / "again", *again, steps=1) == 0
    after = load_file(tmp_path / folder / "model.safetensors")
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in before)


def test_latents_take_the_place_of_pictures(tmp_path, tiny_shards, tiny_pocket, capsys):
    tiny_shards = shutil.copytree(tiny_shards, tmp_path / "renders")
    latents, flags = tmp_path / "latents", ["--shards", str(tiny_shards), "--weights", str(tiny_pocket)]
    assert encode([*flags, "--out", str(latents), "--variants", "3"]) == 0
    index = read_index(str(latents), "train")
    assert len(index) == 3 * len(read_index(str(tiny_shards), "train")) == 24
    table = pq.read_table(latents / "renders" / "part-box-0-32-0000.parquet").to_pylist()
    assert [row["turntable_id"] for row in table] == [f"box-0.{k}/{v}" for k in (0, 1) for v in (0, 1, 2)]
    pictures = read_index(str(tiny_shards), "train")
    chunk = next(chunk for chunk in pictures.chunks if "box-0" in chunk.key)
    turntable = Shards(open_store(str(tiny_shards)), print).turntable(chunk, 0)
    assert turntable is not None
    drawn = draw(turntable, Drawing(batch=1), generator_of_copy(0, "box-0.0", 2))
    expected = PocketAutoencoder.from_pretrained(tiny_pocket / "autoencoder").float().encode_frames(drawn.frames)
    stored = np.frombuffer(table[2]["latents"], np.float16).reshape(16, 8, 2, 2)
    assert table[2]["caption"] == drawn.captions[0]
    assert stored == pytest.approx(expected[0].detach().numpy(), abs=2e-3)
    place = Chunk(key="renders/part-box-0-32-0000.parquet", group=0, rows=(0,), size=0)
    encoded = Shards(open_store(str(latents)), print).turntable(place, 0)
    assert encoded is not None
    rolled = draw(encoded, Drawing(batch=1, roll_share=1.0), torch.Generator().manual_seed(1))
    first = np.frombuffer(table[0]["latents"], np.float16).reshape(16, 8, 2, 2)
    shifts = [k for k in range(16) if np.array_equal(np.roll(first, -k, 0), rolled.frames[0].numpy())]
    assert len(shifts) == 1
    assert shifts[0] > 0
    for target in ("image", "video", "temporal"):
        small = ["--train.from-weights", "--train.total-batch", "4"]
        assert finetune(target, latents, tiny_pocket, tmp_path / target, *small) == 0
        losses = [row["loss"] for row in read_log(LocalStore(str(tmp_path / target)))]
        assert len(losses) == 2
        assert np.isfinite(losses).all()
    assert (tmp_path / "temporal" / "sheets" / "step-00000002.png").is_file()
    capsys.readouterr()
    assert "target mask learns from pictures" in refused(capsys, "mask", latents, tiny_pocket, tmp_path / "mask")
    curated = tmp_path / "renders" / "curated.parquet"
    decided = [{"asset_id": "box-0", "kept": False, "split": "train", "caption": "a red box"}]
    pq.write_table(pa.Table.from_pylist(decided), curated)
    assert "was curated anew after" in refused(capsys, "video", latents, tiny_pocket, tmp_path / "other")
    curated.unlink()
    encoder = tiny_pocket / "autoencoder"
    PocketAutoencoder(latent_channels=8, widths=(16, 16, 8)).half().save_pretrained(encoder)
    assert "run `im3d encode` with these weights" in refused(capsys, "video", latents, tiny_pocket, tmp_path / "other")
    assert encode([*flags, "--out", str(latents), "--variants", "2"]) == 2
    assert "variants 3, now 2: choose another --out" in capsys.readouterr().err


def test_a_finished_run_only_writes_its_weights_again(tmp_path, tiny_shards, tiny_pocket, capsys):
    places = tiny_shards, tiny_pocket, tmp_path / "run"
    assert finetune("temporal", *places) == 0
    first = (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes()
    capsys.readouterr()
    assert finetune("temporal", *places) == 0
    assert "step 2 of 2" in capsys.readouterr().out
    assert (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes() == first
    assert finetune("video", *places) == 2
    assert "holds a run of target temporal; give another --out" in capsys.readouterr().err
    assert finetune("temporal", *places, "--train.seed", "7") == 2
    assert "begun with train.seed 0, now 7" in capsys.readouterr().err


def test_a_corrupted_shard_is_named_and_left_out(tmp_path, shards_writer, tiny_pocket, capsys):
    shards = shards_writer(tmp_path / "shards", {"box-0": "a red box", "ball-1": "a ball", "box-2": "a box"})
    broken = shards / "renders" / "part-ball-1-32.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    flips = shards / "renders" / "part-box-2-32.parquet"  # its footer is whole, its pictures are not
    data = bytearray(flips.read_bytes())
    frames = pq.ParquetFile(flips).metadata.row_group(0)
    pages = [frames.column(i) for i in range(frames.num_columns) if "bytes" in frames.column(i).path_in_schema]
    for page in pages:
        first = page.dictionary_page_offset or page.data_page_offset
        for place in range(first + 40, first + page.total_compressed_size - 40, 50):
            data[place] ^= 0xFF
    flips.write_bytes(bytes(data))
    assert finetune("temporal", shards, tiny_pocket, tmp_path / "run", steps=3) == 0
    out = capsys.readouterr().out
    assert "4 turntables of 2 assets" in out
    assert "quarantined: renders/part-ball-1-32.parquet" in out
    assert "quarantined: renders/part-box-2-32.parquet" in out
    assert len(read_log(LocalStore(str(tmp_path / "run")))) == 3


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path, tiny_shards, tiny_pocket):
    run, flags = tmp_path / "run", ["--train.save-every", "2", "--train.keep-last", "9"]
    weights = tiny_pocket / "video" / "diffusion_pytorch_model.safetensors"
    base = weights.read_bytes()
    assert finetune("temporal", tiny_shards, tiny_pocket, run, *flags, steps=6) == 0
    rows = read_log(LocalStore(str(run)))
    weights.write_bytes(base)
    (run / "checkpoints" / "step-00000006" / "state.json").unlink()
    damaged = run / "checkpoints" / "step-00000004" / "average.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert finetune("temporal", tiny_shards, tiny_pocket, run, *flags, steps=6) == 0
    again = read_log(LocalStore(str(run)))
    assert [row["step"] for row in again] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in rows], abs=1e-6)
    assert "step 4 is damaged: average.safetensors" in (run / "damaged.json").read_text()


@pytest.mark.parametrize("part", ["average.safetensors", "state.json"])
def test_a_damaged_last_checkpoint_of_a_finished_run_is_made_again(tmp_path, tiny_shards, tiny_pocket, part):
    run, flags = tmp_path / "run", ["--train.save-every", "2"]
    assert finetune("temporal", tiny_shards, tiny_pocket, run, *flags, steps=4) == 0
    made = (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes()
    damaged = run / "checkpoints" / "step-00000004" / part
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert finetune("temporal", tiny_shards, tiny_pocket, run, *flags, steps=4) == 0
    assert Checkpoints(LocalStore(str(run))).load(4).step == 4
    assert f"step 4 is damaged: {part}" in (run / "damaged.json").read_text()
    assert (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes() == made


def test_the_best_checkpoint_is_whole_and_measured(tmp_path, tiny_shards, tiny_pocket):
    flags = ["--train.save-every", "1", "--train.keep-last", "9"]
    assert finetune("temporal", tiny_shards, tiny_pocket, tmp_path, *flags, steps=3) == 0
    for step, loss in ((1, "NaN"), (2, "0.4"), (3, "0.5")):
        record = tmp_path / "checkpoints" / f"step-0000000{step}" / "state.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"validation": float(loss)}))
    checkpoints = Checkpoints(LocalStore(str(tmp_path)))
    assert checkpoints.best() == 2
    (tmp_path / "checkpoints" / "step-00000002" / "average.safetensors").write_bytes(b"")
    found, problems = checkpoints.load_best()
    assert found.step == 3
    assert "step 2 is damaged" in problems[0]


@pytest.mark.usefixtures("taught")
def test_a_run_keeps_to_its_vocabulary_and_to_what_it_was_begun_on(
    tmp_path, tiny_shards, tiny_pocket, shards_writer, capsys
):
    shards, run = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(tiny_shards, shards)
    assert finetune("image", shards, tiny_pocket, run, "--train.total-batch", "2") == 0
    words = tmp_path / "words" / "text_encoder" / "tokenizer.json"
    assert finetune("text", shards, words.parents[1], tmp_path / "text", "--train.total-batch", "8") == 0
    before = words.read_bytes()
    shards_writer(shards, {"box-8": "a marvellous zebra crossing"})
    assert finetune("text", shards, words.parents[1], tmp_path / "text", "--train.total-batch", "8", steps=3) == 0
    assert words.read_bytes() == before
    path = tiny_pocket / "autoencoder" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    capsys.readouterr()
    wanted = "was begun on another autoencoder than"
    assert wanted in refused(capsys, "image", shards, tiny_pocket, run, "--train.total-batch", "2")


def refused(capsys: pytest.CaptureFixture[str], *arguments) -> str:
    assert finetune(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def test_what_cannot_be_trained_on_is_said_before_training(
    tmp_path, tiny_shards, tiny_pocket, shards_writer, capsys, monkeypatch
):
    out = tmp_path / "run"
    monkeypatch.setattr(prepare, "find_spec", lambda _: None)
    wanted = "train.wandb needs the package wandb, which is not installed"
    assert wanted in refused(capsys, "temporal", tiny_shards, tiny_pocket, out, "--train.wandb", "turntables")
    assert "did you mean temporal?" in refused(capsys, "temporl", tiny_shards, tiny_pocket, out)
    (tmp_path / "empty").mkdir()
    assert "no turntable shards" in refused(capsys, "temporal", tmp_path / "empty", tiny_pocket, out)
    foreign = shards_writer(tmp_path / "foreign", {"box-0": "a box"})
    for path in (foreign / "renders").iterdir():
        pq.write_table(pa.table({"prompt": ["x"]}), path)
    assert "no column 'asset_id'" in refused(capsys, "temporal", foreign, tiny_pocket, out)
    mixed = shards_writer(tmp_path / "mixed", {"box-0": "a box"})
    shards_writer(mixed, {"box-1": "a box"}, size=48)
    assert "mixes frames of 32, 48 pixels" in refused(capsys, "temporal", mixed, tiny_pocket, out)
    large = shards_writer(tmp_path / "large", {"box-0": "a box"}, size=48)
    assert "render with --size 32" in refused(capsys, "temporal", large, tiny_pocket, out)
    silent = shards_writer(tmp_path / "silent", {"box-0": ""})
    assert "has no captions" in refused(capsys, "temporal", silent, tiny_pocket, out)
    assert "builds on" in refused(capsys, "temporal", tiny_shards, tmp_path / "nothing", out)
    for path in (tiny_pocket / "video").iterdir():
        path.unlink()
    assert "im3d finetune --target video" in refused(capsys, "temporal", tiny_shards, tiny_pocket, out)
    config = json.loads((tiny_pocket / "image" / "config.json").read_text())
    (tiny_pocket / "video" / "config.json").write_text(json.dumps(config | {"_class_name": "I2VGenXLUNet"}))
    assert "holds a I2VGenXLUNet" in refused(capsys, "temporal", tiny_shards, tiny_pocket, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("learning_rate", -1.0), ("learning_rate", float("nan")), ("max_grad_norm", 0.0), ("ema_decay", 2.0),
     ("warmup_steps", -5), ("weight_decay", -3.0), ("seed", -1), ("betas", (2.0, 3.0))],
)  # fmt: skip
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        TrainConfig(**{setting: value})


class Wandb:
    """Stands in for the package, and keeps what is sent."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.Image = np.asarray
        self.started: list[dict] = []

    def init(self, **settings):
        self.started.append(settings)
        return self

    def define_metric(self, *_, **__) -> None: ...

    def log(self, row: dict) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.rows.append({})


def test_weights_and_biases_get_what_tensorboard_gets(tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    store = LocalStore(str(tmp_path))
    recorder = Recorder(store, 0, 2, 1, "turntables")
    recorder.step({"step": 1, "loss": 0.5, "seconds": 2.0, "waited": 0.5})
    recorder.saved(1, {"loss": 0.25})
    recorder.sheet(1, np.full((1, 2, 4, 4, 3), 7, np.uint8))
    recorder.close()
    train, validation, sheet, end = wandb.rows
    assert train == {"step": 1, "train/loss": 0.5, "train/seconds": 2.0, "train/samples_per_second": 1.0,
                     "train/data_wait_share": 0.25}  # fmt: skip
    assert validation == {"step": 1, "validation/loss": 0.25}
    assert sheet["sheet"].shape == (4, 8, 3)
    assert not end
    Recorder(store, 1, 2, 1, "turntables").close()
    assert wandb.started[0]["id"] == wandb.started[1]["id"]


def test_a_loss_that_is_no_number_stops_with_the_reason(tmp_path, tiny_shards, tiny_pocket, capsys):
    """A rate so high that the weights overflow: no retry would help, and the checkpoint before stays whole."""
    flags = ["--train.learning-rate", "1e30", "--train.save-every", "1", "--train.warmup-steps", "1"]
    assert finetune("temporal", tiny_shards, tiny_pocket, tmp_path / "run", *flags, steps=20) == 2
    assert "at step" in capsys.readouterr().err
