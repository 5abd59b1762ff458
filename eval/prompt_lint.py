"""Remark on what tends to go wrong in a prompt, verbs of motion (4.3), scenes, length: `lint`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eval.words import MOTION_VERBS

MAX_WORDS = 40
"""About the 77 tokens at which CLIP's text encoder cuts."""
RULES = {
    "motion": "a verb of motion: the turntable may move by itself",
    "several": "more than one object: one may be lost, or both melt into one",
    "scene": "a place beside the object: only the object becomes 3D",
    "long": f"more than {MAX_WORDS} words: CLIP may cut its end",
    "short": "no word that names a thing",
    "repeat": "the same words as an earlier prompt",
}
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ARTICLES = frozenset({"a", "an", "one"})
_COUNTED = re.compile(
    r"^(?:.*?\b(?:photo|photograph|picture|image|render|rendering|model|sculpture|statue) of )?(?:an? |the )?"
    r"(two|three|four|five|six|seven|eight|nine|ten|several|many|group|bunch|couple|stack|pile)\b"
)
_TOGETHER = re.compile(r"\b(?:and|next to|beside|besides|between|holding|carrying|riding|eating|playing)\s+(?:a|an)\b")
_SCENE = re.compile(
    r"\b(?:on|in|at|over|under|inside|against|through|along|near)\s+(?:a|an|the|his|her|its)\s+(?:[\w'-]+\s+){0,2}?"
    r"(?:beach|street|road|table|wall|floor|forest|field|garden|kitchen|room|river|lake|sea|ocean|sky|shelf|desk|"
    r"notebook|grass|snow|stage|mountain|hill|city|park|window|canvas|plate|bed|chair|tree)\b"
)


_PLACED = re.compile(
    r"\b(?:on(?:to| top of)?|atop|upon|under|beneath|beside|against|near|next to|alongside|around|above|over|across|"
    r"in front of|at)\s+(?:a|an|the|his|her|its|their|some|two)\s+"
    r"(?!(?:back|bottom|feet|foot|front|head|hind|legs?|rear|sides?|top)\b)[\w'-]+"
)
"""A thing that is said to be somewhere, not on a part of its own, has another thing or a place with it."""


@dataclass(kw_only=True, slots=True)
class Remark:
    """One rule that a prompt meets: `words` that met it."""

    prompt_id: str
    rule: str
    words: str


def lint(prompts: Iterable[tuple[str, str]]) -> Iterator[Remark]:
    """The remarks on (prompt_id, prompt) pairs, in their order."""
    seen: dict[str, str] = {}
    for prompt_id, prompt in prompts:
        words = _WORD.findall(prompt.casefold())
        for rule, found in _remarks(prompt.casefold(), words):
            yield Remark(prompt_id=prompt_id, rule=rule, words=found)
        key = " ".join(word for word in words if word not in _ARTICLES | {"the"})
        if key in seen:
            yield Remark(prompt_id=prompt_id, rule="repeat", words=seen[key])
        seen.setdefault(key, prompt_id)


def _remarks(text: str, words: list[str]) -> Iterator[tuple[str, str]]:
    moving = [word for word in words if word in MOTION_VERBS]
    if moving:
        yield "motion", ", ".join(moving)
    scene = _SCENE.search(text)
    several = _COUNTED.findall(text) + _TOGETHER.findall(text)
    if not scene:
        several += _PLACED.findall(text)
    if several:
        yield "several", ", ".join(several)
    if scene:
        yield "scene", scene[0]
    if len(words) > MAX_WORDS:
        yield "long", f"{len(words)} words"
    if not any(len(word) > 2 for word in words):
        yield "short", text.strip()[:40]
