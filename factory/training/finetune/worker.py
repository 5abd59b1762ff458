"""Train on Ray Train's workers, each fed its own ordered stream and restarted when one dies: `train_worker`.

    shards ── ReadTurntables ──▶ stream of worker 0..n-1 ── `model.training.train` ──▶ checkpoints, log, weights
              decode, augment    by (seed, worker, position)

All state lies in the output folder: a new group of workers, after a death or in another call, reads the newest
whole checkpoint there and goes on at its step, with the same data and the same noise.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.ledger.keys import digest
from factory.line.health import own_memory
from factory.storage.store import open_store
from factory.training.finetune.run import DAMAGED, STOPPED, Run, setting_of
from factory.training.finetune.targets import TARGETS
from model.config import Share
from recon.user_error import UserError

if TYPE_CHECKING:
    from model.checkpoints import Checkpoint
    from model.pocket.data import Batch
    from model.training import Recipe, Setting

SHEET_ASSETS = 6
VALIDATION_BATCH, VALIDATION_PIXELS = 8, 1 << 22
"""Turntables of a validation batch at most, and pixels of all their views: one turntable of 16 views of 512 x 512."""


def work(config: dict[str, Any]) -> None:
    """What each worker does; Ray Train calls it, again after a death."""
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device

    from model.parallel import World
    from model.training import NotFinite

    run: Run = config["run"]
    if run.stopped is not None:
        return
    context = ray_train.get_context()
    torch.set_num_threads(run.workers.threads)
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=get_device())  # pyright: ignore
    try:
        train_worker(run, world, feed=lambda start, share: _micro_batches(start, share))
    except (UserError, NotFinite) as error:
        lower = "lower --train.learning-rate, or " if isinstance(error, NotFinite) else ""
        reason = f"{error}; the checkpoints in {run.out} are whole: {lower}fix the cause, and run again"
        run.store.put(STOPPED, json.dumps({"reason": reason}).encode())
        raise


def train_worker(run: Run, world: Any, feed: Any) -> None:
    """Train from the newest checkpoint to the end; `feed(position, share)` is the stream of turntables."""
    with tempfile.TemporaryDirectory(prefix="im3d-finetune-") as scratch:
        setting = setting_of(run, Path(scratch))
        session = Session(run, world, setting)
        session.go(feed)


class Session:
    """One worker's run: built, resumed, and saved at its steps.

    Args:
        run: what is trained.
        world: which worker this is.
        setting: what the target is built from.
    """

    def __init__(self, run: Run, world: Any, setting: Setting) -> None:
        from model.checkpoints import Checkpoints
        from model.training import Training

        self.run, self.world, self.setting = run, world, setting
        self.checkpoints = Checkpoints(run.store, run.train.keep_last)
        found, problems = self.checkpoints.latest()
        steps = world.gather(found.step if found else 0)
        if len(set(steps)) > 1:
            raise RuntimeError(f"the workers found checkpoints of different steps: {steps}")
        if world.rank == 0:
            self._drop_broken(found, problems)
        recipe = TARGETS[run.target].build(setting)
        if recipe.gather and (found is None or not recipe.gathered):
            recipe.gather(self._plain())
        self.recipe, self.share = recipe, run.share()
        self.training = Training(recipe, run.train, self.share, world, run.workers.parallel)
        if found:
            self.training.load(found.state, found.step)
        self.validation = self._validation()

    def go(self, feed: Any) -> None:
        """Train to the end."""
        from factory.training.finetune.recorder import Recorder
        from model.training import train

        training, config, share = self.training, self.run.train, self.share
        position = training.step * share.micro * share.rounds
        if self.recipe.feed:
            batches = self.recipe.feed(share, self.world, training.step)
        else:
            batches = feed(position, share)
        recorder = None
        if self.world.rank == 0:
            recorder = Recorder(self.run.store, training.step, share.total, config.log_every, config.wandb)

        def on_save() -> None:
            measured = training.validate(self.validation) if self.validation else {}
            state = training.state()
            if recorder is not None:
                recorder.saved(training.step, measured)
                self.checkpoints.save(training.step, state, measured.get("loss"), self._judged_on())
                drawn = training.step % config.sheet_every == 0 or training.step == config.num_steps
                if drawn and self.recipe.sheet is not None:
                    self._draw(recorder, state)

        try:
            train(training, batches, lambda row: recorder.step(row | memory()) if recorder else None, on_save)
        finally:
            if recorder is not None:
                recorder.close()

    def _drop_broken(self, found: Checkpoint | None, problems: list[str]) -> None:
        for step in self.checkpoints.steps():
            if step > (found.step if found else -1):
                self.checkpoints.discard(step)
        if problems:
            self.run.store.put(DAMAGED, json.dumps(problems).encode())

    def _plain(self) -> Iterator[Batch]:
        from factory.training.shards.draw_order import plain_batches

        return plain_batches(self.run.reader(), 64)

    def _validation(self) -> list[tuple[int, Batch]]:
        """This worker's batches of the fixed validation turntables, by number.

        Batches are those of one stream, dealt out in turn, so that the loss compares between any numbers of workers
        and micro-batches. Every worker has as many, since all compute in step: where they do not come out even, some
        have one that another has too.
        """
        from itertools import islice

        from factory.training.shards.draw_order import plain_batches

        found, world = self.run.validation, self.world
        wanted = min(self.run.train.validation_turntables, len(found or ()))
        if found is None or not wanted or self.recipe.feed:
            return []
        fits = VALIDATION_PIXELS // (found.views * found.size**2)
        size = max(1, min(VALIDATION_BATCH, TARGETS[self.run.target].drawing.batch, wanted, fits))
        count = wanted // size
        dealt = [n % count for n in range(world.rank, -(-count // world.size) * world.size, world.size)]
        stream = plain_batches(self.run.reader(index=found), size)
        batches = {n: batch for n, batch in enumerate(islice(stream, max(dealt) + 1)) if n in dealt}
        return [(n, batches[n]) for n in dealt]

    def _judged_on(self) -> str | None:
        """Names the fixed validation turntables; None without."""
        found = self.run.validation
        if found is None or not self.validation:
            return None
        return digest(repr(found.chunks), str(self.run.train.validation_turntables))

    def _draw(self, recorder: Any, state: dict[str, dict[str, Any]]) -> None:
        """A sheet of what the averaged weights make of the first validation (else training) turntables."""
        import torch

        from factory.training.shards.draw_order import plain_batches

        sheet = averaged(self.run, self.setting, state).sheet
        if sheet is None:
            return
        batch = next(plain_batches(self.run.reader(index=self.run.validation), SHEET_ASSETS))
        with torch.no_grad():
            recorder.sheet(self.training.step, sheet(batch))


def memory() -> dict[str, float]:
    """Memory of this process in MiB, without Ray's object store."""
    return {"memory_mb": own_memory() / 2**20}


def averaged(run: Run, setting: Setting, state: dict[str, dict[str, Any]]) -> Recipe:
    """The target on the CPU with a checkpoint's averaged weights."""
    from model.training import load_weights

    recipe = TARGETS[run.target].build(setting)
    named = dict(recipe.loss.named_parameters())
    kept = state["weights"] | state["average"]
    load_weights({name: named[name].data for name in kept if name in named}, kept)
    recipe.loss.eval()
    return recipe


def publish(run: Run) -> int:
    """Write the best checkpoint's averaged weights into the weights' folder; returns its step."""
    from model.checkpoints import Checkpoints

    best, problems = Checkpoints(run.store).load_best()
    for problem in problems:
        print(f"left out: {problem}")
    with tempfile.TemporaryDirectory(prefix="im3d-publish-") as scratch:
        recipe = averaged(run, setting_of(run, Path(scratch)), best.state)
        recipe.save(Path(scratch, "made"))
        target = open_store(run.weights, run.storage)
        for path in sorted(Path(scratch, "made").rglob("*")):
            if path.is_file():
                target.put(path.relative_to(Path(scratch, "made")).as_posix(), path.read_bytes())
    return best.step


def _micro_batches(start: int, share: Share) -> Iterator[Batch]:
    """Micro-batches of this worker from Ray Data, checked to begin at position `start`."""
    import torch
    from ray import train as ray_train

    from model.pocket.data import Batch

    shard: Any = ray_train.get_dataset_shard("train")
    position = start
    for rows in shard.iter_batches(batch_size=share.micro, prefetch_batches=2, batch_format="numpy"):
        if rows["position"][0] != position:
            raise RuntimeError(f"the stream is at {rows['position'][0]}, expected {position}")
        position += len(rows["position"])
        yield Batch(
            frames=torch.from_numpy(rows["frames"].copy()),
            captions=rows["caption"].tolist(),
            azimuths=torch.from_numpy(rows["azimuths"].copy()),
            elevations=torch.from_numpy(rows["elevation"].copy()),
        )
