"""Which rejected prompts are made again, and with which seeds."""

from factory.prompts.next_seeds import seed_of_try, with_next_seeds
from factory.prompts.row import MAX_SEED, Prompt

PROMPTS = [Prompt(prompt_id=f"p{k}", prompt="a cup", seed=10 * k) for k in range(4)]


def test_each_rejected_prompt_takes_its_next_seed() -> None:
    rejected = {"p1": 10, "p2": seed_of_try(20, 1)}
    found = with_next_seeds(PROMPTS, rejected, retries=2)
    assert [(prompt.prompt_id, prompt.seed) for prompt in found] == [
        ("p1", seed_of_try(10, 1)),
        ("p2", seed_of_try(20, 2)),
    ]


def test_there_are_no_more_tries_than_asked_for() -> None:
    assert with_next_seeds(PROMPTS, {"p1": seed_of_try(10, 2)}, retries=2) == []
    assert with_next_seeds(PROMPTS, {"p1": 10}, retries=0) == []


def test_seeds_stay_seeds() -> None:
    seeds = {seed_of_try(MAX_SEED, number) for number in range(11)}
    assert len(seeds) == 11
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
