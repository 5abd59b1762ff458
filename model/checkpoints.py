"""Keep checkpoints by step in a store, seen wholly or not at all, checked when read: `Checkpoints`.

checkpoints/step-00000500/weights.safetensors, average.safetensors, optimizer.safetensors
checkpoints/step-00000500/state.json     step, validation, SHA-256 of the three; written last
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from recon.user_error import UserError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
State = dict[str, dict[str, "Tensor"]]


class Files(Protocol):
    """What checkpoints need of a store; `factory.storage.store.Store` is one."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace, whole or not at all."""
        ...

    def get(self, key: str) -> bytes:
        """What was put; raises KeyError."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """All that start with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove; nothing where it is not there."""
        ...


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """A whole checkpoint, read and checked."""

    step: int
    state: State
    validation: float | None


class Checkpoints:
    """The checkpoints of a run.

    Args:
        store: the run's output folder.
        keep_last: how many are kept beside the best.
    """

    def __init__(self, store: Files, keep_last: int = 2) -> None:
        self.store, self.keep_last = store, keep_last

    def save(self, step: int, state: State, validation: float | None, judged_on: str | None = None) -> None:
        """Write a checkpoint, then delete those that are neither recent nor best.

        `judged_on` names what `validation` was measured on: losses compare where it is the same.
        """
        from safetensors.torch import save

        digests = {}
        for part, tensors in state.items():
            data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
            digests[part] = hashlib.sha256(data).hexdigest()
            self.store.put(f"{_folder(step)}/{part}.safetensors", data)
        record = {"step": step, "validation": validation, "judged_on": judged_on, "sha256": digests}
        self.store.put(f"{_folder(step)}/state.json", json.dumps(record).encode())
        kept = {*self.steps()[-self.keep_last :], self.best()}
        for old in self.steps():
            if old not in kept:
                self.discard(old)

    def steps(self) -> list[int]:
        """Steps of all finished checkpoints, rising."""
        names = (key.split("/") for key in self.store.keys(f"{FOLDER}/"))
        return sorted(int(parts[1].removeprefix("step-")) for parts in names if parts[-1] == "state.json")

    def best(self) -> int | None:
        """The step of the lowest validation loss of those measured as the newest; the newest itself where that was
        not measured; None without checkpoints."""
        return next(iter(self._ranked()), None)

    def load_best(self) -> tuple[Checkpoint, list[str]]:
        """The best checkpoint that is whole, and what was wrong with better ones.

        Raises:
            ValueError: when no checkpoint is whole.
        """
        problems = []
        for step in self._ranked():
            try:
                return self.load(step), problems
            except ValueError as error:
                problems.append(str(error))
        raise UserError("no checkpoint is whole; run the training again, into another --out")

    def _ranked(self) -> list[int]:
        """Steps whose record can be read, best first: those measured as the newest by loss, then the newest others."""
        records = {}
        for step in self.steps():
            with suppress(ValueError):
                records[step] = self._record(step)
        if not records:
            return []
        newest = records[max(records)]
        losses = {step: record["validation"] for step, record in records.items() if _comparable(record, newest)}
        rest = sorted(records.keys() - losses.keys(), reverse=True)
        best = sorted(losses, key=lambda step: (losses[step], step))
        return [*rest, *best] if newest["validation"] is None else [*best, *rest]

    def load(self, step: int) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            ValueError: when a file of it is missing or not what was written.
        """
        from safetensors.torch import load

        record, state = self._record(step), {}
        for part, digest in record["sha256"].items():
            try:
                data = self.store.get(f"{_folder(step)}/{part}.safetensors")
            except KeyError:
                data = b""
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"checkpoint of step {step} is damaged: {part}.safetensors is not what was written")
            state[part] = load(data)
        return Checkpoint(step=step, state=state, validation=record["validation"])

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and what was wrong with newer ones."""
        problems = []
        for step in reversed(self.steps()):
            try:
                return self.load(step), problems
            except ValueError as error:
                problems.append(str(error))
        return None, problems

    def discard(self, step: int) -> None:
        """Delete a checkpoint, its record first."""
        self.store.delete(f"{_folder(step)}/state.json")
        for key in list(self.store.keys(f"{_folder(step)}/")):
            self.store.delete(key)

    def _record(self, step: int) -> dict[str, Any]:
        try:
            record = json.loads(self.store.get(f"{_folder(step)}/state.json"))
        except (KeyError, ValueError):
            record = None
        if not isinstance(record, dict) or not {"step", "validation", "sha256"} <= record.keys():
            raise ValueError(f"checkpoint of step {step} is damaged: state.json is not what was written")
        return record


def _comparable(record: dict[str, Any], newest: dict[str, Any]) -> bool:
    loss = record["validation"]
    return loss is not None and math.isfinite(loss) and record.get("judged_on") == newest.get("judged_on")


def _folder(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
