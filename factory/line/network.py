"""Name a neural network that a stage loads: `Network`, part of a run's identity and checked before the run starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network that a stage's settings ask for. Networks of one name are one, whichever stages load them."""

    name: str
    """What it is called in `weights.json`."""
    address: str
    """As the settings give it: "pocket", a folder, an s3:// address, a hub id, or a name that a library knows."""
    locate: Callable[[], Path | None]
    """Finds its file or folder on this machine, or fetches it; raises ValueError or RuntimeError, in one sentence,
    where it cannot be had. None: a library keeps it, so that `address` and `revision` are all there is."""
    revision: str | None = None
    """The branch, tag or commit that the settings ask for."""
    check_card: Callable[[Path, int], None] | None = None
    """Raises RuntimeError where a card of so many bytes cannot hold it."""
    card_bytes: Callable[[Path], int] | None = None
    """What it takes of a card, where that is much."""
    check: Callable[[Path], None] | None = None
    """Raises UserError where what was found does not go with the other networks."""
    license: str | None = None
    """Where it is known without its model card."""
