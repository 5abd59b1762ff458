"""Drive a training run through Ray Train to the weights, under the lease of its folder: `train`."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict

from factory.ledger.lease import Lease
from factory.ledger.stop_signal import preserved_handler
from factory.line.failure import Failure, place_of
from factory.storage.interface import StorageError
from factory.storage.store import pyarrow_filesystem
from factory.training.finetune.run import (
    CAPTIONS,
    DAMAGED,
    FAILURE,
    QUARANTINE,
    STOPPED,
    Quarantine,
    Run,
)
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.worker import publish, work
from recon.user_error import UserError

PROGRESS_SECONDS = 10.0


def train(run: Run) -> int:
    """Train what is left to train and write the weights; returns the exit code.

    Raises:
        RuntimeError: in one sentence, when training had to stop.
    """
    from factory.training.finetune.report_page import write_report
    from model.checkpoints import Checkpoints

    store = run.store
    with Lease(store):
        store.sweep()
        for key in (STOPPED, DAMAGED, FAILURE, *store.keys(f"{QUARANTINE}/")):
            store.delete(key)
        for shard, reason in run.index.quarantined.items():
            Quarantine(store)(shard, reason)
        settings = {
            "target": run.target,
            "built_on": run.built_on,
            "train": asdict(run.train),
            "workers": asdict(run.workers),
        }
        store.put("run.json", json.dumps(settings, indent=1).encode())
        store.put(CAPTIONS, json.dumps({"captions": run.captions}).encode())
        if run.index.unjudged:
            print(f"{run.index.unjudged} assets came after `im3d curate` and are trained on as they are; "
                  "run it again to have them judged")  # fmt: skip
        done = max(Checkpoints(store).steps(), default=0)
        if done >= run.train.num_steps:
            newest, _ = Checkpoints(store).latest()
            done = newest.step if newest else 0
        print(f"{run.target}: {len(run.index)} turntables of {len(run.index.captions)} assets, "
              f"{len(run.validation or ())} for validation; step {done} of {run.train.num_steps}")  # fmt: skip
        if done < run.train.num_steps:
            with watched(run):
                fit(run)
        best = publish(run)
        notes = {"published step": str(best), "workers": str(run.workers.workers), "turntables": str(len(run.index))}
        write_report(store, f"im3d finetune --target {run.target}", notes)
    for shard, reason in Quarantine(store).listed().items():
        print(f"quarantined: {shard}: {reason}")
    print(f"weights of step {best}: {run.weights}; report: {run.out}/report.html")
    return 0


def fit(run: Run) -> None:
    """Start Ray Train and wait for its end.

    Raises:
        UserError: when the loss is not finite, or a setting does not fit the data.
        RuntimeError: when workers died too often, or of a bug; its traceback is in FAILURE.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from factory.line.ray_session import start_ray
    from factory.training.finetune.ray_feed import Feed

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    start_ray(run.workers.address)
    check_room(run.workers)
    check_shared(run)
    filesystem, path = pyarrow_filesystem(f"{run.out}/ray", run.storage)
    trainer = TorchTrainer(
        work,
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(num_workers=run.workers.workers, use_gpu=run.workers.gpu),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12], storage_path=path, storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=run.workers.max_failures),
        ),
        datasets={"train": lambda: run.index},  # pyright: ignore[reportArgumentType]
        dataset_config=Feed(run),
    )  # fmt: skip
    try:
        with preserved_handler(signal.SIGINT):
            trainer.fit()
    except Exception as error:
        if run.stopped is None:
            trace = Failure.of(error).trace
            run.store.put(FAILURE, trace.encode())
            raise RuntimeError(
                f"training stopped at {place_of(trace)}: {_last_line(error)}; the traceback is in {run.out}/{FAILURE}; "
                "fix the cause, then run the same command again to go on"
            ) from error
    if run.stopped is not None:
        raise UserError(f"training stopped: {run.stopped}")


def check_room(workers: WorkersConfig) -> None:
    """Whether the cluster can hold the workers and their readers; Ray would wait for ever.

    Raises:
        RuntimeError: in one sentence.
    """
    import ray

    has = ray.cluster_resources()
    cpus, needed = int(has.get("CPU", 0)), workers.workers * (1 + workers.readers)
    if needed > cpus:
        raise UserError(f"{workers.workers} workers with {workers.readers} readers each need {needed} CPUs, "
                        f"Ray has {cpus}; take fewer")  # fmt: skip
    gpus = int(has.get("GPU", 0))
    if workers.gpu and workers.workers > gpus:
        raise UserError(f"{workers.workers} workers need a GPU each, Ray has {gpus}; take fewer, or leave out --gpu")


def check_shared(run: Run) -> None:
    """Whether every node of the cluster sees the local folders of a run.

    Raises:
        RuntimeError: in one sentence.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = [place for place in (f"{run.out}/run.json", run.weights, run.index.url) if "://" not in place]
    if len(nodes) < 2 or not places:
        return
    look = ray.remote(num_cpus=0)(lambda: [place for place in places if not os.path.exists(place)])
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        unseen = ray.get(look.options(scheduling_strategy=there).remote())
        if unseen:
            raise UserError(f"node {node['NodeManagerAddress']} does not see {unseen[0]}; give folders that every "
                            "node has, or s3:// addresses")  # fmt: skip


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


@contextmanager
def watched(run: Run):
    """Print a line of progress every few seconds, for as long as the context lasts."""
    from factory.training.finetune.recorder import progress_line, read_log

    over, shown = threading.Event(), [0]

    def look() -> None:
        rows: list[dict[str, float]] = []
        with suppress(KeyError, StorageError):  # a part that a restarted worker is writing anew
            rows = read_log(run.store)
        if rows and rows[-1]["step"] != shown[0]:
            shown[0] = int(rows[-1]["step"])
            print(progress_line(rows, run.train.num_steps, run.share().total), flush=True)

    def watch() -> None:
        while not over.wait(PROGRESS_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
