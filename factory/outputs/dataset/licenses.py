"""Say what licences of models allow together: `allowed_together`. No legal advice, but a place to begin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a licence of a model asks of those who use what it makes, as its text is commonly read."""

    commercial: bool = True
    """Use for money is allowed without asking."""
    uses: bool = False
    """Some uses are forbidden, by a list in the licence."""
    credit: bool = False
    """The authors must be named when the work is passed on."""
    alike: bool = False
    """What is made of it carries the same licence."""


_FREE = ("apache-2.0", "mit", "mit-0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc")
_OPENRAIL = ("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m")
TERMS = {
    **dict.fromkeys(_FREE, Terms()),
    **dict.fromkeys(_OPENRAIL, Terms(uses=True)),
    "cc-by-4.0": Terms(credit=True),
    "cc-by-sa-4.0": Terms(credit=True, alike=True),
    "cc-by-nc-4.0": Terms(commercial=False, credit=True),
    "cc-by-nc-sa-4.0": Terms(commercial=False, credit=True, alike=True),
    "stabilityai-ai-community": Terms(commercial=False, uses=True, credit=True),
    "stable-video-diffusion-community": Terms(commercial=False, uses=True, credit=True),
    "sv3d-nc-community": Terms(commercial=False, uses=True, credit=True),
}
"""By name in lower case. Commercial use that depends on a company's size counts as not allowed without asking."""


def allowed_together(licenses: Iterable[str]) -> list[str]:
    """Sentences on what a set of licences allows, the strictest of them each time."""
    names = sorted(set(licenses))
    known = {name: TERMS[name.casefold()] for name in names if name.casefold() in TERMS}
    unknown = [name for name in names if name not in known]

    def who(**wanted: bool) -> str:
        return ", ".join(n for n, terms in known.items() if all(getattr(terms, k) == v for k, v in wanted.items()))

    said = []
    if unknown:
        said.append(f"Not known here, so read before any use: {', '.join(unknown)}.")
    if names_nc := who(commercial=False):
        said.append(f"Not for commercial use without asking: {names_nc}.")
    elif known and not unknown:
        said.append("Commercial use is allowed by all of them.")
    if names_uses := who(uses=True):
        said.append(
            f"Some uses are forbidden by a list in the licence, also to those it is passed on to: {names_uses}."
        )
    if names_credit := who(credit=True):
        said.append(f"The authors must be named: {names_credit}.")
    if names_alike := who(alike=True):
        said.append(f"What is made of it carries the same licence: {names_alike}.")
    return said
