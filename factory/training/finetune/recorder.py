"""Record a training run in its output folder, as a row a step, TensorBoard and sheets: `Recorder`.

log/part-00000500.jsonl    rows of the steps after 500, until the next checkpoint
tensorboard/…              the same as events
sheets/step-00001000.png   turntables sampled for fixed assets
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.storage.local import LocalStore
from factory.storage.store import Store

LOG, EVENTS, SHEETS, VALIDATIONS = "log", "tensorboard", "sheets", "validation"
Row = dict[str, float]


class Recorder:
    """Written by the first worker only. A run that goes on at `step` forgets the rows after it.

    Args:
        store: the run's output folder.
        step: how many steps are done.
        samples: turntables a step.
        log_every: steps between writes.
        project: of Weights & Biases, None for TensorBoard alone.
    """

    def __init__(self, store: Store, step: int, samples: int, log_every: int, project: str | None = None) -> None:
        from tensorboardX import SummaryWriter

        self._wandb = _joined(project, store) if project else None
        self.store, self.samples, self.log_every = store, samples, log_every
        for folder in (LOG, VALIDATIONS):
            for key in list(store.keys(f"{folder}/")):
                if _start_of(key) >= step + (folder == VALIDATIONS):
                    store.delete(key)
        self._part, self._rows, self._shown = step, [], step
        local = isinstance(store, LocalStore)
        self._scratch = None if local else tempfile.TemporaryDirectory(prefix="im3d-events-")
        self._folder = Path(store.root, EVENTS) if self._scratch is None else Path(self._scratch.name)
        self._writer = SummaryWriter(str(self._folder), purge_step=step or None)

    def step(self, row: Row) -> None:
        """Keep a step's row; every `log_every`-th call writes."""
        self._rows.append(row)
        if len(self._rows) % self.log_every == 0:
            self.flush()

    def saved(self, step: int, validation: Row) -> None:
        """A checkpoint of `step` is written: its rows are final."""
        self.flush()
        self._part, self._rows = step, []
        if validation:
            self.store.put(f"{VALIDATIONS}/step-{step:08d}.json", json.dumps(validation).encode())
            self._scalars({f"validation/{name}": value for name, value in validation.items()}, step)
            self._upload()

    def sheet(self, step: int, pictures: NDArray[np.uint8]) -> None:
        """Write a sheet of pictures uint8 [B,N,S,S,3|4], one row each."""
        from PIL import Image

        rgb = np.concatenate([np.concatenate(list(row[..., :3]), 1) for row in pictures])
        stream = io.BytesIO()
        Image.fromarray(rgb).save(stream, "PNG")
        self.store.put(f"{SHEETS}/step-{step:08d}.png", stream.getvalue())
        self._writer.add_image("sheet", rgb, step, dataformats="HWC")
        if self._wandb is not None:
            import wandb  # pyright: ignore[reportMissingImports]

            self._wandb.log({"step": step, "sheet": wandb.Image(rgb)})
        self._upload()

    def flush(self) -> None:
        """Write what has come in since the last call."""
        if not self._rows:
            return
        lines = "".join(json.dumps(_rounded(row)) + "\n" for row in self._rows)
        self.store.put(f"{LOG}/part-{self._part:08d}.jsonl", lines.encode())
        recent = self._rows[-self.log_every :]
        step = int(recent[-1]["step"])
        if step <= self._shown:
            return
        self._shown = step
        names = sorted({name for row in recent for name in row})
        figures = {name: float(np.mean([row[name] for row in recent if name in row])) for name in names}
        seconds = sum(row["seconds"] for row in recent)
        figures["samples_per_second"] = self.samples * len(recent) / max(seconds, 1e-9)
        figures["data_wait_share"] = sum(row["waited"] for row in recent) / max(seconds, 1e-9)
        shown = {f"train/{name}": value for name, value in figures.items() if name not in ("step", "waited")}
        self._scalars(shown, step)
        self._upload()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self._writer.close()
        self._upload()
        if self._wandb is not None:
            self._wandb.finish()

    def _scalars(self, values: Row, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **values})

    def _upload(self) -> None:
        self._writer.flush()
        if self._scratch is not None:
            for path in self._folder.iterdir():
                self.store.put(f"{EVENTS}/{path.name}", path.read_bytes())


def _joined(project: str, store: Store) -> Any:
    """The run of Weights & Biases that belongs to an output folder: going on there goes on here."""
    import hashlib

    import wandb  # pyright: ignore[reportMissingImports]

    name = hashlib.sha256(store.root.encode()).hexdigest()[:16]
    run = wandb.init(project=project, id=name, resume="allow", dir=tempfile.mkdtemp(prefix="im3d-wandb-"))
    run.define_metric("*", step_metric="step")
    return run


def _rounded(row: Row) -> dict[str, Any]:
    return {name: int(value) if name == "step" else float(f"{value:.8g}") for name, value in row.items()}


def _start_of(key: str) -> int:
    return int(key.rsplit("-", 1)[1].split(".")[0])


def read_log(store: Store) -> list[Row]:
    """Every step's row, in order."""
    return [json.loads(line) for text in _texts(store, LOG) for line in text.splitlines()]


def read_validations(store: Store) -> dict[int, Row]:
    """Validation figures by step."""
    return {_start_of(key): json.loads(store.get(key)) for key in store.keys(f"{VALIDATIONS}/")}


def _texts(store: Store, folder: str) -> Iterator[str]:
    for key in store.keys(f"{folder}/"):
        yield store.get(key).decode()


def progress_line(rows: list[Row], num_steps: int, samples: int) -> str:
    """Where a run stands, in one line, by its last rows."""
    recent = rows[-50:]
    step, seconds = int(recent[-1]["step"]), sum(row["seconds"] for row in recent) / len(recent)
    wait = sum(row["waited"] for row in recent) / max(sum(row["seconds"] for row in recent), 1e-9)
    left = (num_steps - step) * seconds
    eta = f"{left / 3600:.1f} h" if left > 5400 else f"{math.ceil(left / 60)} min" if left > 90 else f"{left:.0f} s"
    loss = sum(row["loss"] for row in recent) / len(recent)
    return (f"step {step} of {num_steps}  loss {loss:.4f}  {samples / max(seconds, 1e-9):.1f} turntables/s  "
            f"waiting for data {wait:.0%}  {eta} left")  # fmt: skip
