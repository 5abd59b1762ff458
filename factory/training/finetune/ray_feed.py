"""Feed each training worker one ordered stream of drawn turntables by Ray Data: `Feed`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.data
from ray.data import DataContext, Dataset, TaskPoolStrategy
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.train import DataConfig

from factory.training.finetune.run import Run
from factory.training.shards.draw_order import Reader, Window

BLOCK_BYTES = 8 << 20
STEP_SECONDS = 0.05


class ThrottledPolling(ExecutionCallback):
    """Lets a step of Ray Data's loop take `STEP_SECONDS` at least.

    The loop waits for readers that have something to give. Where they are ahead of the training they always have, and
    it would turn without a pause, on a core for every worker.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def on_execution_step(self, executor: object) -> None:
        """Called by Ray Data after each step."""
        time.sleep(max(0.0, self._last + STEP_SECONDS - time.monotonic()))
        self._last = time.monotonic()


class Feed(DataConfig):
    """Gives each worker the stream of `factory.training.shards.draw_order.Order`, from the newest checkpoint on.

    Ray's own splitting hands blocks to whoever asks first, so that no run could be repeated.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def configure(self, datasets: Any, world_size: int, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """One iterator a worker; called for every new group of workers."""
        from model.checkpoints import Checkpoints

        steps = Checkpoints(self.run.store).steps()
        streams = [self.dataset(rank, world_size, steps[-1] if steps else 0) for rank in range(world_size)]
        return [{"train": stream.streaming_split(1)[0]} for stream in streams]

    def dataset(self, rank: int, workers: int, step: int) -> Dataset:
        """The rest of a worker's stream, from a step on."""
        each = self.run.share().total // workers
        start, stop = step * each, self.run.train.num_steps * each
        reader = self.run.reader(rank, workers)
        windows = reader.order.until(start, max(stop, start + 1))
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.target_max_block_size = BLOCK_BYTES
        context.enable_progress_bars = False
        context.custom_execution_callback_classes = [ThrottledPolling]
        read = ReadTurntables(reader, windows, start, stop)
        numbers = ray.data.range(len(windows), override_num_blocks=len(windows))
        return numbers.map_batches(
            read.rows, batch_size=1, compute=TaskPoolStrategy(size=self.run.workers.readers), num_cpus=1
        )  # fmt: skip


class ReadTurntables:
    """Windows by their number to drawn turntables, position by position."""

    def __init__(self, reader: Reader, windows: list[Window], start: int, stop: int) -> None:
        self.reader, self.windows, self.start, self.stop = reader, windows, start, stop

    def rows(self, batch: Any) -> Iterator[dict[str, np.ndarray]]:
        """Rows of a window, one at a time; Ray gathers them into blocks."""
        for number in batch["id"]:
            for position, sample in self.reader.samples(self.windows[number], self.start):
                if position >= self.stop:
                    return
                yield {
                    "position": np.array([position]),
                    "frames": sample.frames.numpy(),
                    "caption": np.array(sample.captions, object),
                    "azimuths": sample.azimuths.numpy(),
                    "elevation": sample.elevations.numpy(),
                }
