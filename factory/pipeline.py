"""Build the chain of stages that runs on Ray Data, by `steps`:

    prompts ── TextToImage ── ImageToVideo ── FindViews ── Reconstruct ── Score ── Commit ──▶ one record a prompt
               image          frames          masks,       Gaussians,     CLIP,    files, then an asset row
                                              elevation    fit and        usable   or a dead letter
                                                           re-denoise

`steps` is this chain, or another that the settings name; `factory.line.run` drives prompts through it until each has
exactly one record in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

from factory.config.settings import FactoryConfig, fingerprint
from factory.line.step import Step
from factory.stages.asset_table import MadeWith
from factory.stages.chain import pools_of, stages_of, written_columns
from factory.stages.commit import Commit
from factory.weights.folder import resolved


def steps(config: FactoryConfig, out: str, run_id: str, networks: Sequence[dict[str, Any]] = ()) -> list[Step]:
    """The chain, in order; raises ValueError where its stages do not fit together.

    Args:
        networks: name, revision and licence of those that it loads, for the rows of the assets.
    """
    chain, pools = stages_of(config.chain), pools_of(config)
    given = resolved(config)
    sizes = accumulate(stage.added_bytes(given) for stage in chain)
    timed = {stage.name: pools[stage.name] for stage in chain if stage.columns()}
    columns = written_columns(config.chain)
    made_with = MadeWith(fingerprint=fingerprint(config), columns=columns, pools=timed, networks=networks)
    end: dict[str, Any] = {"out": out, "run_id": run_id, "made_with": made_with}
    return [
        Step(
            actor=stage,
            pool=pools[stage.name],
            arguments={
                "config": SimpleNamespace(**{name: getattr(given, name) for name in stage.sections}),
                "storage": given.storage,
            }
            | (end if issubclass(stage, Commit) else {}),
            seconds=stage.expected_seconds(given),
            row_bytes=0 if issubclass(stage, Commit) else size,
        )
        for stage, size in zip(chain, sizes, strict=True)
    ]
