"""Run prompts through the chain, for `generate`, `retry` and the dry run: `run_prompts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig
    from factory.line.output_folder import OutputFolder
    from factory.line.tally import Tally
    from factory.prompts.row import Prompt
    from factory.stages.survey import Need


def run_prompts(
    settings: FactoryConfig, prompts: Sequence[Prompt], folder: OutputFolder, needs: Sequence[Need]
) -> Tally | None:
    """Make the assets that the folder lacks, and count them; None where all prompts are settled there.

    Args:
        needs: what `find_networks` found; empty where nothing is to be made.
    """
    from factory.config.settings import fingerprint
    from factory.pipeline import steps
    from factory.prompts.work import PromptWork
    from factory.stages.preflight import provenance

    work = PromptWork(prompts=prompts, config=settings)
    chain = steps(settings, folder.store.root, folder.run_id, provenance(needs))
    return folder.run(work, chain, settings.line, settings.cost, "prompts", fingerprint=fingerprint(settings))
