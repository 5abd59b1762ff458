"""Give prompts whose assets were rejected their next seeds: `with_next_seeds`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from factory.prompts.row import MAX_SEED, Prompt

STEP = 7919
"""From the seed of one try to that of the next."""


def seed_of_try(seed: int, number: int) -> int:
    """The seed of a prompt's try, from 0 on; it follows from the prompt's own, so that a stopped run goes on."""
    return (seed + STEP * number) % (MAX_SEED + 1)


def with_next_seeds(prompts: Iterable[Prompt], rejected: Mapping[str, int], retries: int) -> list[Prompt]:
    """The rejected prompts that have tries left, each with the seed of its next one.

    Args:
        rejected: by id the seed that the last asset was made with.
        retries: after the first try, >= 0.
    """
    found = []
    for prompt in prompts:
        last = rejected.get(prompt.prompt_id)
        if last is None:
            continue
        tries = [number for number in range(retries) if seed_of_try(prompt.seed, number) == last]
        if tries:
            found.append(replace(prompt, seed=seed_of_try(prompt.seed, tries[0] + 1)))
    return found
