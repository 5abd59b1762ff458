"""Each target trains with settings of its own, which flags change and the help shows."""

import pytest

from factory.training.finetune.targets import TARGETS
from jobs.finetune import parse
from model.config import TrainConfig
from recon.user_error import UserError

PLACES = ["--shards", "renders", "--weights", "weights"]


@pytest.mark.parametrize("target", ["i2vgen-xl", "svd", "sv3d"])
def test_large_generators_train_as_in_the_papers_appendix(target: str) -> None:
    train = parse(["--target", target, *PLACES]).train
    assert (train.learning_rate, train.total_batch) == (1e-5, 240)
    assert (train.betas, train.ema_decay, train.num_steps) == ((0.9, 0.999), 0.9999, 40_000)


def test_flags_change_single_settings() -> None:
    job = parse(["--target", "sv3d", *PLACES, "--train.num-steps", "7"])
    assert (job.train.num_steps, job.train.learning_rate, job.shards) == (7, 1e-5, "renders")
    assert TARGETS["sv3d"].drawing.count == 21
    assert TARGETS["wan-lora"].drawing.count == 80


def test_the_embedded_targets_keep_theirs() -> None:
    assert parse(["--target", "temporal", *PLACES]).train == TrainConfig()


def test_help_shows_the_targets_own(capsys: pytest.CaptureFixture[str]) -> None:
    for target, rate in (("i2vgen-xl", "1e-05"), ("wan-lora", "0.0001"), ("temporal", "0.001")):
        with pytest.raises(SystemExit):
            parse(["--help-all", "--target", target])
        told = capsys.readouterr().out
        place = told.index("--train.learning-rate")
        assert f"(default: {rate})" in told[place : place + 400]


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean sv3d"):
        parse(["--target", "sv3", *PLACES])
