"""Find the stages of a chain by name, and whether they fit together: `stages_of`, `pools_of`, `written_columns`.

An entry is the name of a built-in stage, or `package.module:Class`, imported from the working directory.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from factory.config.settings import DEFAULT_CHAIN, FactoryConfig
from factory.ledger.schemas import LINE
from factory.line.placement import Pool
from factory.line.pool_flags import ALL
from factory.line.rows import is_large
from factory.line.stage import Stage
from factory.stages.asset_table import assets_schema
from factory.stages.commit import Commit
from factory.stages.find_views import FindViews
from factory.stages.image_to_video import ImageToVideo
from factory.stages.reconstruct import Reconstruct
from factory.stages.score import Score
from factory.stages.text_to_image import TextToImage
from recon.user_error import UserError

BUILT_IN = {kind.name: kind for kind in (TextToImage, ImageToVideo, FindViews, Reconstruct, Score, Commit)}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def stages_of(chain: str) -> list[type[Stage]]:
    """The stages of a chain as the settings give it, in order.

    Raises:
        UserError: for an entry that is no stage, a stage that reads what none before it writes, or a chain that does
            not end in a commit.
    """
    stages = [_stage(entry.strip()) for entry in chain.split(",")]
    names = [stage.name for stage in stages]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"chain has two stages called {repeated[0]}; give each a name of its own")
    commits = [stage.name for stage in stages if issubclass(stage, Commit)]
    if commits != names[-1:]:
        raise UserError(f"chain is {chain}; it must end in commit, or in a subclass of it, and have no other")
    _check_columns(stages)
    return stages


def written_columns(chain: str = DEFAULT_CHAIN) -> list[pa.Field]:
    """What the stages of a chain write, in order, each column once."""
    found: dict[str, pa.Field] = {}
    for stage in stages_of(chain):
        for column in stage.columns():
            found.setdefault(column.name, column)
    return list(found.values())


def pools_of(config: FactoryConfig) -> dict[str, Pool]:
    """The pool of each stage of the chain, in order: its own default with what the settings change.

    Raises:
        UserError: where pools are set for a stage that there is none of, or are out of range.
    """
    stages = stages_of(config.chain)
    known = {ALL, *BUILT_IN, *(stage.name for stage in stages)}
    for name in config.line.pools:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"Available: {', '.join(sorted(known))}"
            raise UserError(f"line.pools names {name!r}, which is no stage; {hint}")
    return {stage.name: _sized(config.line.pool(stage.name, stage.pool), stage) for stage in stages}


def _sized(pool: Pool, stage: type[Stage]) -> Pool:
    """The pool with its batch, where the settings leave it open."""
    if pool.batch is not None:
        return pool
    return replace(pool, batch=stage.gpu_batch if pool.gpus > 0 else 1)


def _stage(entry: str) -> type[Stage]:
    if entry in BUILT_IN:
        return BUILT_IN[entry]
    module, colon, name = entry.partition(":")
    if not colon:
        near = difflib.get_close_matches(entry, BUILT_IN, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"chain: no stage {entry!r}; {hint}Available: {', '.join(BUILT_IN)}, or package.module:Class")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())  # as Ray has it on its workers
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"chain: {entry} cannot be imported from {os.getcwd()} ({error}); run the job in the folder that has it"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise UserError(f"chain: {entry} is no stage; derive it from factory.line.stage.Stage")
    if not _NAME.fullmatch(getattr(found, "name", "")):
        raise UserError(f"chain: {entry} needs a name of a-z, 0-9 and _, for its pool and its columns")
    return found


def _check_columns(stages: Sequence[type[Stage]]) -> None:
    """Every column that a stage reads must be there, of one type throughout, and none may be the line's own."""
    there = {field.name: (field, "the table of prompts") for field in LINE}
    of_the_table = set(assets_schema(()).names)
    for stage in stages:
        for column in stage.writes:
            small = not (is_large(column) or pa.types.is_map(column.type))
            if column.name in LINE.names or (small and column.name in of_the_table):
                raise UserError(
                    f"chain: stage {stage.name} writes {column.name}, which the line itself writes; "
                    "give the column another name"
                )
        for wanted in stage.reads:
            if wanted.name not in there:
                writers = [name for name, kind in BUILT_IN.items() if wanted.name in {f.name for f in kind.columns()}]
                hint = f"put {' or '.join(writers)} before it" if writers else "put a stage before it that does"
                raise UserError(
                    f"chain: stage {stage.name} reads {wanted.name}, which no stage before it writes; {hint}"
                )
        for column in (*stage.reads, *stage.uses, *stage.columns()):
            known, writer = there.get(column.name, (column, stage.name))
            if known.type != column.type:
                raise UserError(
                    f"chain: stage {stage.name} has {column.name} as {column.type}, {writer} as {known.type}; "
                    "give one of them another name"
                )
        there |= {column.name: (column, f"stage {stage.name}") for column in stage.columns()}
