"""Copy turntables for the page of a study, playable in every browser and named by content alone: `Media`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from factory.ledger.commit_protocol import COMMITS
from factory.ledger.reader import ASSETS, LedgerReader
from factory.line.stage import Row
from factory.prompts.foreign_folder import assets_of_folder
from factory.storage.interface import ReadableStore, StorageConfig, Store
from factory.storage.read_only import open_read_only
from recon.pictures import suffix_of
from recon.user_error import UserError

PAGE = "page"
"""Folder of a study that annotators see."""
GRID = 8
"""Tiles a side of a broken version."""


@dataclass(kw_only=True, slots=True)
class Turntable:
    """One method's video of a prompt, and the reference image where there is one: keys in the method's folder."""

    prompt: str
    video: str
    image: str | None = None
    image_bytes: bytes | None = None


@dataclass(kw_only=True, slots=True)
class Method:
    """A method by its `label`, and its turntables by prompt_id."""

    label: str
    store: ReadableStore
    turntables: dict[str, Turntable]
    problems: list[str] = field(default_factory=list)
    """What was left out, and why."""


@dataclass(kw_only=True, slots=True)
class Media:
    """Videos and images as the page holds them, named by their content so that no name tells a method."""

    out: Store
    """The folder of the study; the page lies below it."""
    problems: list[str] = field(default_factory=list)
    reencoded: int = 0

    def video(self, method: Method, prompt_id: str) -> str | None:
        """The page's address of a method's turntable, in a form that browsers play; None and a problem where unread."""
        try:
            data = method.store.get(method.turntables[prompt_id].video)
            playable = _playable(data)
        except (KeyError, ValueError) as error:
            self.problems.append(f"{method.label}, {prompt_id}: {error}")
            return None
        self.reencoded += playable is not data
        return self.put(playable, "mp4")

    def broken(self, method: Method, prompt_id: str, seed: int) -> str:
        """The page's address of the turntable with its picture cut into tiles and shuffled."""
        from recon.video_io import decode_mp4, encode_mp4, frame_rate

        data = method.store.get(method.turntables[prompt_id].video)
        frames = shuffle_tiles(decode_mp4(data), seed)
        return self.put(encode_mp4(frames, frame_rate(data)), "mp4")

    def image(self, method: Method, prompt_id: str) -> str | None:
        """The page's address of the reference image; None where there is none, or a problem where it is unread."""
        turntable = method.turntables[prompt_id]
        try:
            data = turntable.image_bytes or (method.store.get(turntable.image) if turntable.image else None)
            return self.put(data, suffix_of(data)) if data else None
        except (KeyError, ValueError) as error:
            self.problems.append(f"{method.label}, {prompt_id}: {error}")
            return None

    def put(self, data: bytes, suffix: str) -> str:
        """Keep bytes in the page, under the address that is returned."""
        name = f"media/{hashlib.sha256(data).hexdigest()[:20]}.{suffix}"
        self.out.put(f"{PAGE}/{name}", data)
        return name


def method_of_run(
    label: str, root: str, storage: StorageConfig, prompts: str | None = None, image_root: str | None = None,
    image_hosts: tuple[str, ...] = (),
) -> Method:  # fmt: skip
    """The turntables of an output folder of `im3d generate`, or of <prompt_id>.mp4 files with a table of prompts.

    Args:
        storage: how the folder is reached.
        image_root: folder that the table's image paths are relative to, its own by default.
        image_hosts: that addresses of its images may name.

    Raises:
        UserError: when the folder has none.
    """
    store = open_read_only(root, storage)
    if next(iter(store.keys(f"{ASSETS}/")), None) or next(iter(store.keys(f"{COMMITS}/")), None):
        method = _own_method(label, store)
    elif prompts is None:
        raise UserError(f"{root} is no output of im3d generate; for a folder of <prompt_id>.mp4 give --prompts TABLE")
    else:
        method = _method_of_folder(label, store, assets_of_folder(root, prompts, image_root, storage, image_hosts))
    if not method.turntables:
        why = f": {method.problems[0]}" if method.problems else ""
        raise UserError(f"{root} holds no turntable with a prompt; a study wants finished assets{why}")
    return method


def _own_method(label: str, store: ReadableStore) -> Method:
    rows = LedgerReader(store).rows(ASSETS, ["prompt_id", "prompt", "turntable.path", "image.path"])
    found = {
        row["prompt_id"]: Turntable(prompt=row["prompt"], video=row["turntable"]["path"], image=row["image"]["path"])
        for row in rows
    }
    return Method(label=label, store=store, turntables=found)


def _method_of_folder(label: str, store: ReadableStore, assets: Iterable[Row]) -> Method:
    method = Method(label=label, store=store, turntables={})
    for row in assets:
        if row.get("error"):
            method.problems.append(f"{label}, {row['prompt_id']}: {row['error']}")
        elif row.get("frames_path") and row["prompt"]:
            method.turntables[row["prompt_id"]] = Turntable(
                prompt=row["prompt"], video=row["frames_path"], image_bytes=row["image"]
            )
    return method


def shuffle_tiles(frames: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Frames uint8 [T,H,W,3] cut into GRID x GRID tiles that change places, the same in every frame.

    Sides are cut to multiples of 2 GRID, as h264 wants even ones.

    Raises:
        ValueError: for frames under 2 GRID pixels.
    """
    step = 2 * GRID
    height, width = (side // step * step for side in frames.shape[1:3])
    if not height or not width:
        raise ValueError(f"frames are {frames.shape[1]}x{frames.shape[2]}; a check wants at least {step} pixels a side")
    tiles = frames[:, :height, :width].reshape(len(frames), GRID, height // GRID, GRID, width // GRID, 3)
    tiles = tiles.transpose(1, 3, 0, 2, 4, 5).reshape(GRID * GRID, len(frames), height // GRID, width // GRID, 3)
    tiles = tiles[np.random.default_rng(seed).permutation(GRID * GRID)]
    tiles = tiles.reshape(GRID, GRID, len(frames), height // GRID, width // GRID, 3).transpose(2, 0, 3, 1, 4, 5)
    return np.ascontiguousarray(tiles.reshape(len(frames), height, width, 3))


def _playable(data: bytes) -> bytes:
    """The same bytes where browsers play them, else h264 of them."""
    from recon.video_io import decode_mp4, encode_mp4, frame_rate, plays_in_browsers

    if plays_in_browsers(data):
        return data
    frames = decode_mp4(data)
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    return encode_mp4(np.ascontiguousarray(frames), frame_rate(data))
