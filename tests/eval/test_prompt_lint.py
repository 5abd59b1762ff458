"""Remarks on prompts: what each rule catches, and what it leaves alone."""

from __future__ import annotations

import pytest

from eval.prompt_lint import MAX_WORDS, RULES, lint


def rules(*prompts: str) -> list[str]:
    return [remark.rule for remark in lint((str(k), prompt) for k, prompt in enumerate(prompts))]


@pytest.mark.parametrize(
    "prompt",
    ["a red car", "a table with four legs", "a cat with a mullet", "a pair of jeans", "a swing", "a chest full of gold",
     "a bowl of ramen", "a yellow submarine", "a 20-sided die made out of glass",
     "the leaning tower of Pisa, aerial view", "a turtle standing on its hind legs", "a cake with a cherry on the top"],
)  # fmt: skip
def test_plain_objects_pass(prompt: str) -> None:
    assert rules(prompt) == []


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("a horse galloping", "motion"),
        ("A Running Dog", "motion"),
        ("two cars", "several"),
        ("a DSLR photo of a pile of dice", "several"),
        ("a cat and a dog", "several"),
        ("a squirrel holding an acorn", "several"),
        ("a teddy bear leans against a toy car", "several"),
        ("a novel rests atop a worn-out diary", "several"),
        ("a vintage clock hanging on a brick wall", "scene"),
        ("a", "short"),
        ("!!", "short"),
        ("red " * (MAX_WORDS + 1), "long"),
    ],
)
def test_each_rule_is_met(prompt: str, rule: str) -> None:
    assert rules(prompt) == [rule]
    assert rule in RULES


def test_repeats_name_the_first() -> None:
    found = list(lint([("x", "a red car"), ("y", "A cup"), ("z", "The  red car!")]))
    assert [(remark.prompt_id, remark.rule, remark.words) for remark in found] == [("z", "repeat", "x")]
