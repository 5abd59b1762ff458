"""Run prompts through the chain, for `generate`, `retry` and the dry run: `run_prompts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig
    from factory.ledger.ledger import Ledger
    from factory.line.output_folder import OutputFolder
    from factory.line.tally import Tally
    from factory.prompts.row import Prompt
    from factory.stages.survey import Need


def run_prompts(
    settings: FactoryConfig, prompts: Sequence[Prompt], folder: OutputFolder, needs: Sequence[Need]
) -> Tally | None:
    """Make the assets that the folder lacks, and count them; None where all prompts are settled there.

    Rejected ones that have retries left are made again afterwards, in passes of their own.

    Args:
        needs: what `find_networks` found; empty where nothing is to be made.
    """
    from factory.config.settings import fingerprint
    from factory.pipeline import steps
    from factory.prompts.next_seeds import with_next_seeds
    from factory.prompts.work import PromptWork
    from factory.stages.preflight import provenance

    chain = steps(settings, folder.store.root, folder.run_id, provenance(needs))

    def make(some: Sequence[Prompt], verb: str = "make") -> Tally | None:
        work, key = PromptWork(prompts=some, config=settings), fingerprint(settings)
        return folder.run(work, chain, settings.line, settings.cost, "prompts", verb, fingerprint=key)

    tally, retries = make(prompts), settings.quality.retries
    for _ in range(retries):
        again = with_next_seeds(prompts, _rejected(folder.ledger), retries)
        if not again:
            break
        folder.ledger.requeue({prompt.prompt_id for prompt in again})
        make(again, "make again with other seeds, since their assets were rejected")
    return tally


def _rejected(ledger: Ledger) -> dict[str, int]:
    """By id the seed of every prompt whose asset was made and found unusable."""
    from factory.ledger.ledger import DEAD
    from factory.ledger.schemas import REJECTED

    letters = ledger.rows(DEAD, ["prompt_id", "seed", "error_type"])
    return {row["prompt_id"]: row["seed"] for row in letters if row["error_type"] == REJECTED}
