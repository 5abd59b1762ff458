"""Turntable shards, as `im3d render` writes them: what lies in them and what of it is trained on.

A shard that cannot be read is quarantined: named, and left out.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from factory.ledger.keys import digest
from factory.prompts.assets import split_of
from factory.storage.interface import ReadableStore, StorageError
from factory.storage.store import StorageConfig, Store, open_store
from factory.training.shards.schema import compressed_bytes, foreign_column, frame_counts
from recon.user_error import UserError

COLUMNS = ["asset_id", "caption", "split", "size", "elevation"]
CURATED = "curated.parquet"
ENCODER, SHAPE = b"im3d.encoder", b"im3d.shape"
"""Metadata of shards of latents: which encoder made them, and the shape [V,C,h,w] of a turntable's, as JSON."""
MAX_QUARANTINED = 0.5
"""A larger share of unreadable shards, or of unusable rows, stops a run before it starts."""
READERS = 16


class NoTurntables(ValueError):
    """The shards hold none of the split that was asked for."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Chunk:
    """The wanted rows of one row group of a shard."""

    key: str
    group: int
    rows: tuple[int, ...]
    size: int
    """Compressed bytes."""


@dataclass(kw_only=True, slots=True)
class Index:
    """What a folder of shards holds of one split."""

    url: str
    chunks: list[Chunk]
    captions: dict[str, str]
    """By asset id."""
    size: int
    """Side of the frames in pixels."""
    views: int
    """Frames of a turntable."""
    encoder: str = ""
    """The encoder of shards of latents, see `factory.training.encode.fingerprint`; "" for pictures."""
    quarantined: dict[str, str] = field(default_factory=dict)
    """Shards and rows that cannot be used, and why."""
    unjudged: int = 0
    """Assets that `im3d curate` did not know when it chose."""
    storage: StorageConfig | None = None

    def __len__(self) -> int:
        return sum(len(chunk.rows) for chunk in self.chunks)


def read_index(
    url: str,
    split: str | None,
    storage: StorageConfig | None = None,
    only_kept: bool = True,
) -> Index:
    """Look through the shards of a folder, without their frames.

    Args:
        url: a local path or s3:// address, the output of `im3d render`.
        split: rows of this split only; None takes all.
        only_kept: leave out what `im3d curate` dropped.

    Raises:
        NoTurntables: when there are none of the split.
        ValueError: in one sentence, when the shards do not go together or none can be used.
    """
    store = folder_of(url, storage)
    groups, broken = _groups(store, url)
    decided = decisions(store) if only_kept else {}
    rows = _usable(groups, decided, broken, url)
    wanted = [row for row in rows if row.kept and split in (None, row.split)]
    if not wanted and any(split in (None, row.split) for row in rows):
        raise UserError(f"{url}: curated.parquet drops every turntable of split {split!r}; curate it less strictly")
    if not wanted:
        raise NoTurntables(f"{url} has no turntables of split {split!r}. Available: {_listed({r.split for r in rows})}")
    size = _only({row.size for row in wanted}, url, "frames of {} pixels; render one size")
    views = _only({row.views for row in wanted}, url, "turntables of {} views; render one number")
    encoders = {group.encoder for group in groups}
    if len(encoders) > 1:
        raise UserError(f"{url} mixes pictures and latents, or latents of several autoencoders; "
                        "give each a folder of its own")  # fmt: skip
    captions = {row.asset_id: row.caption for row in wanted}
    captions |= {row.asset_id: row.caption for row in wanted if row.caption}
    places: dict[tuple[str, int], list[int]] = {}
    for row in wanted:
        places.setdefault((row.group.key, row.group.number), []).append(row.number)
    bytes_of = {(group.key, group.number): group.size for group in groups}
    return Index(
        url=store.root,
        chunks=[Chunk(key=k, group=g, rows=tuple(r), size=bytes_of[k, g]) for (k, g), r in places.items()],
        captions={asset: captions[asset] for asset in sorted(captions)},
        size=size, views=views, encoder=encoders.pop(), quarantined=broken, storage=storage,
        unjudged=len(captions.keys() - decided.keys()) if decided else 0,
    )  # fmt: skip


def _only(values: set[int], url: str, what: str) -> int:
    if len(values) > 1:
        raise UserError(f"{url} mixes {what.format(_listed(values))} into a folder of its own")
    return next(iter(values))


def _usable(groups: list[_Group], chosen: dict[str, Decision], broken: dict[str, str], url: str) -> list[_Row]:
    """The rows that can be trained on; the others are added to `broken`. Raises ValueError when those are too many."""
    found: list[_Row] = []
    unusable: dict[str, str] = {}
    for group in groups:
        for number in range(len(group.columns["asset_id"])):
            problem = group.problem(number)
            if problem:
                unusable[f"{group.key} row group {group.number} row {number}"] = problem
            else:
                found.append(group.row(number, chosen))
    if len(unusable) > MAX_QUARANTINED * (len(found) + len(unusable)):
        place, reason = next(iter(unusable.items()))
        raise UserError(f"{len(unusable)} of {len(found) + len(unusable)} turntables in {url} cannot be used "
                        f"({place}: {reason}); give the output of `im3d render`")  # fmt: skip
    of_shard: dict[str, list[str]] = {}
    for place, reason in unusable.items():
        key, where = place.split(" ", 1)
        of_shard.setdefault(key, []).append(f"{where}: {reason}")
    broken |= {f"{key}, {len(reasons)} of its turntables": reasons[0] for key, reasons in of_shard.items()}
    return found


def folder_of(url: str, storage: StorageConfig | None = None) -> Store:
    """The output folder of `im3d render`, of which `url` may also be the folder `renders` with the shards."""
    given, parent = url.rstrip("/"), url.rstrip("/").removesuffix("/renders")
    inside = parent != given and not any(True for _ in open_store(given, storage).keys("renders/"))
    return open_store(parent if inside else given, storage)


@dataclass(kw_only=True, slots=True, frozen=True)
class Decision:
    """What `im3d curate` decided about an asset."""

    kept: bool
    split: str
    caption: str


def decisions(store: ReadableStore) -> dict[str, Decision]:
    """What `im3d curate` decided, by asset; empty before curation."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(store.get(CURATED)), columns=["asset_id", "kept", "split", "caption"])
    except KeyError:
        return {}
    return {row.pop("asset_id"): Decision(**row) for row in table.to_pylist()}


def choice_of(store: ReadableStore) -> str:
    """A digest of what `im3d curate` decided; another choice has another one."""
    return digest(repr(sorted(decisions(store).items())))


@dataclass(kw_only=True, slots=True)
class _Row:
    group: _Group
    number: int
    asset_id: str
    caption: str
    split: str
    size: int
    views: int
    kept: bool


@dataclass(kw_only=True, slots=True)
class _Group:
    key: str
    number: int
    columns: dict[str, list[Any]]
    views: list[int]
    size: int
    encoder: str

    def problem(self, number: int) -> str | None:
        """Why a row cannot be trained on; None when it can."""
        for name in ("asset_id", "size", "elevation"):
            value = self.columns[name][number]
            if value is None or (name != "asset_id" and not math.isfinite(value)):
                return f"{name} is {value}"
        return None if self.views[number] else "no frames"

    def row(self, number: int, chosen: dict[str, Decision]) -> _Row:
        """A row, with what `im3d curate` decided about its asset."""
        columns = self.columns
        asset = columns["asset_id"][number]
        default = Decision(kept=True, split=columns["split"][number], caption=columns["caption"][number] or "")
        decided = chosen.get(asset, default)
        return _Row(
            group=self, number=number, asset_id=asset, kept=decided.kept, caption=decided.caption,
            split=split_of(asset, decided.split), size=int(columns["size"][number]), views=self.views[number],
        )  # fmt: skip


def _groups(store: Store, url: str) -> tuple[list[_Group], dict[str, str]]:
    """Every readable row group in order, and why other shards are not readable; raises ValueError."""
    keys = [key for key in store.keys("renders/") if key.endswith(".parquet")]
    if not keys:
        raise UserError(f"{url} holds no turntable shards (renders/*.parquet); make some with `im3d render`")
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(keys, pool.map(lambda key: _look(store, key), keys), strict=True))
    broken = {key: reason for key, reason in found.items() if isinstance(reason, str)}
    if len(broken) > MAX_QUARANTINED * len(keys):
        key, reason = next(iter(broken.items()))
        raise UserError(f"{len(broken)} of {len(keys)} shards in {url} cannot be used ({key}: {reason}); "
                        "give the output of `im3d render`")  # fmt: skip
    return [group for groups in found.values() if not isinstance(groups, str) for group in groups], broken


def _look(store: Store, key: str) -> list[_Group] | str:
    """The small columns of a shard's row groups; a string says why there are none."""
    import pyarrow.parquet as pq

    try:
        with storage_errors_first(store, key), store.open(key) as stream:
            file = pq.ParquetFile(stream)
            metadata = file.schema_arrow.metadata or {}
            encoder = metadata.get(ENCODER, b"").decode()
            problem = foreign_column(file.schema_arrow, [*COLUMNS, "latents" if encoder else "frames"])
            return problem or [_group(file, key, number, encoder) for number in range(file.num_row_groups)]
    except StorageError:
        raise
    except Exception as error:  # whatever a decoder meets in a broken file
        return reason_of(error)


def _group(file: Any, key: str, number: int, encoder: str) -> _Group:
    about = file.metadata.row_group(number)
    if encoder:
        views = [json.loads(file.schema_arrow.metadata[SHAPE])[0]] * about.num_rows
    else:
        views = frame_counts(file, number)
    columns = file.read_row_group(number, COLUMNS).to_pydict()
    size = compressed_bytes(about)
    return _Group(key=key, number=number, columns=columns, views=views, size=size, encoder=encoder)


@contextmanager
def storage_errors_first(store: Store, key: str) -> Iterator[None]:
    """Around decoding a file: when that fails and the bytes cannot be had either, the file is not to blame.

    Raises:
        StorageError: then.
    """
    try:
        yield
    except OSError as error:
        try:
            with store.open(key) as stream:
                while stream.read(1 << 24):
                    pass
        except OSError:
            raise StorageError(f"cannot read {store.root}/{key}: {error}") from error
        raise


def reason_of(error: Exception) -> str:
    """An error as one short line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _listed(values: set[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values))
