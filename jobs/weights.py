"""Public networks, where there is network: list, pull into a folder or bucket, check: `im3d weights ACTION`.

Exit code: 0 when all is there, 1 when `check` finds something wrong, 2 when a network cannot be had.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from factory.config.settings import Preset
from jobs.base import Job, start
from jobs.help import parse_flags
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class List(Job):
    """Show the networks of the catalogue, or those of a preset: where they are, how large, under which licence."""

    preset: Preset | None = None
    """Only what this preset loads."""
    hub: str | None = None
    """Address of another hub than huggingface.co."""
    offline: bool = False
    """Ask no hub: sizes and licences that the catalogue does not know are then unknown."""


@dataclass(kw_only=True, slots=True)
class Pull(Job):
    """Download networks into TO/NAME, or what is missing of them. Run it again after a failure: it goes on."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Networks of the catalogue, beside those of --preset."""
    to: str
    """Folder, local or s3://; give it to the other jobs as --weights."""
    preset: Preset | None = None
    """What this preset loads."""
    accept_license: tuple[str, ...] = ()
    """Networks whose licence you have read and accept, of those that are not free for every use or state none."""
    hub: str | None = None
    """Address of another hub than huggingface.co."""


@dataclass(kw_only=True, slots=True)
class Check(Job):
    """Compare every byte of a pulled folder with the digests of its download."""

    folder: tyro.conf.Positional[str]
    """What `pull` filled, local or s3://, or the folder of one network in it."""


AnyWeights: Any = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Pull, tyro.conf.subcommand("pull")]
    | Annotated[Check, tyro.conf.subcommand("check")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""

    def parse(arguments: list[str]) -> Any:
        return parse_flags(AnyWeights, arguments, "im3d weights", description=__doc__)

    return start("weights", AnyWeights, run, argv, parse)


def run(job: List | Pull | Check) -> int:
    """Do what is asked for; returns the exit code."""
    return _list(job) if isinstance(job, List) else _pull(job) if isinstance(job, Pull) else _check(job)


def _names(preset: Preset | None) -> list[str]:
    """The networks of a preset that are in the catalogue, each once."""
    from factory.config import settings
    from factory.weights.catalogue import CATALOGUE
    from factory.weights.folder import assigned

    return list(dict.fromkeys(assigned(settings.preset(preset)).values())) if preset else list(CATALOGUE)


def _list(job: List) -> int:
    from rich.table import Table

    from factory.config import settings
    from factory.line.summary import make_console

    names = _names(job.preset)
    if not names:
        print(f"preset {job.preset} loads the embedded networks alone")
        return 0
    table = Table(title="GB as downloaded; licences as the cards state them", title_justify="left", box=None)
    for column in ("name", "for", "GB", "licence", "account", "source"):
        table.add_column(column, justify="right" if column == "GB" else "left", overflow="fold")
    asks = not job.offline
    for name in names:
        row, asks = _row(name, job.hub, asks)
        table.add_row(*row)
    make_console().print(table)
    if job.preset and (estimator := settings.preset(job.preset).views.estimator) != "pocket":
        print(
            f"beside them the elevation estimator {estimator}, which is not public: im3d finetune --target {estimator}"
        )
    if not asks and not job.offline:
        print("the hub does not answer here: sizes and licences are those that the catalogue knows")
    return 0


def _row(name: str, hub: str | None, asks: bool) -> tuple[list[str], bool]:
    """A line of the list; and whether to ask the sources on: once one does not answer, no others are waited for."""
    from factory.weights.catalogue import CATALOGUE
    from factory.weights.sources import listed

    entry, listing = CATALOGUE[name], None
    if asks:
        try:
            listing = listed(entry, hub)
        except UserError:
            asks = False
    size = listing.gigabytes if listing else entry.gigabytes
    license = (listing.license if listing else None) or entry.license or "unknown"
    gated = "needed" if entry.gated or (listing and listing.gated) else "" if listing or not entry.on_hub else "?"
    return [name, entry.use, f"{size:.2f}" if size else "?", license, gated, entry.source], asks


def _pull(job: Pull) -> int:
    from factory.weights.catalogue import entry_of
    from factory.weights.pull import pull

    names = list(dict.fromkeys([*(_names(job.preset) if job.preset else ()), *job.names]))
    if not names:
        raise UserError("name networks to pull, or a --preset that loads public ones: im3d weights list")
    _refuse_unaccepted(names, job)
    for name in names:
        print(f"{name}: {entry_of(name).source}", flush=True)
        place = pull(name, job.to, accept=name in job.accept_license, hub=job.hub, storage=job.storage)
        print(f"{place} is whole, under {_license(place, job)}", flush=True)
    return 0


def _refuse_unaccepted(names: Sequence[str], job: Pull) -> None:
    """Raise UserError before anything is downloaded: for unknown names, and for all licences that are to be accepted.

    Those of networks that are there were accepted before; what only the hub knows of a licence, `pull` refuses.
    """
    from factory.weights.catalogue import entry_of

    accepted = job.accept_license
    entries = {name: entry_of(name) for name in (*names, *accepted)}
    waiting = {name: entry for name, entry in entries.items()
               if entry.must_accept and name not in accepted and not _is_pulled(name, job)}  # fmt: skip
    if waiting:
        terms = ", ".join(f"{name} ({entry.license or 'unknown'}, {entry.page})" for name, entry in waiting.items())
        flags = " ".join([*accepted, *waiting])
        raise UserError(f"read the licences of {terms}, which are not free for every use or not known, and pull with "
                        f"--accept-license {flags}")  # fmt: skip


def _is_pulled(name: str, job: Pull) -> bool:
    try:
        return bool(_license(f"{job.to.rstrip('/')}/{name}", job))
    except (OSError, ValueError, KeyError):
        return False


def _license(place: str, job: Pull) -> str:
    from factory.weights.pull import license_at

    return license_at(place, job.storage)


def _check(job: Check) -> int:
    from factory.weights.pull import check

    found = check(job.folder, job.storage)
    for name, problems in found.items():
        print("\n".join(f"{name}: {problem}" for problem in problems) or f"{name}: whole")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
