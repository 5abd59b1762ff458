"""Ask every machine of a run what its stages need of it and whether that is there: `survey`, `refuse_missing`.

A network is missing where it cannot be found, is half downloaded or pickled, or does not fit the card; so is a GPU
where a stage computes on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights
from factory.line.device import device_for
from factory.line.network import Network
from factory.line.placement import Pool, check_nodes
from factory.line.stage import Stage
from factory.storage.weights import read_weights_by
from factory.weights.catalogue import CATALOGUE
from factory.weights.folder import known
from recon.user_error import UserError

HERE = "this machine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Something that a stage needs of a machine."""

    stage: str
    name: str
    """Of the network, or "GPU"."""
    address: str = ""
    machine: str = HERE
    problem: str | None = None
    """Why it is not there, in one sentence; None: it is."""
    revisions: Weights = field(default_factory=dict)
    """Of the network, and of what lies beside it."""
    license: str | None = None
    """As the network's card states it, or as it is known without one; None where it is not there."""


def survey(stages: Sequence[type[Stage]], config: FactoryConfig, pools: Mapping[str, Pool]) -> list[Need]:
    """What the stages need of this machine, or of every node of the cluster that may have their actors.

    Raises:
        UserError: where no node can hold an actor of a stage, and none will come.
    """
    if config.line.address == "local":
        return look(stages, config, pools)
    return _on_nodes(stages, config, pools)


def look(
    stages: Sequence[type[Stage]], config: FactoryConfig, pools: Mapping[str, Pool], machine: str = HERE
) -> list[Need]:
    """What stages need of this machine: each network once, where it is first loaded."""
    read_weights_by(config.storage)
    found: dict[str, Need] = {}
    held: dict[str, int] = {}
    for stage in stages:
        device = _device(stage, config, pools[stage.name])
        if device == "cuda":
            problem = _problem(_require_cuda)
            found.setdefault("GPU", Need(stage=stage.name, name="GPU", machine=machine, problem=problem))
        for network in stage.networks(config):
            on_card = device == "cuda" and found["GPU"].problem is None
            if network.name not in found:
                found[network.name] = _seen(stage.name, network, machine, on_card)
            place = network.locate() if on_card and found[network.name].problem is None else None
            if place is not None and network.card_bytes is not None:
                held[stage.name] = held.get(stage.name, 0) + network.card_bytes(place)
    if held and (problem := _problem(lambda: check_shared_card(held, pools, _card_bytes()))):
        found["GPU memory"] = Need(stage=next(iter(held)), name="GPU memory", machine=machine, problem=problem)
    return list(found.values())


def check_shared_card(held: Mapping[str, int], pools: Mapping[str, Pool], card: int) -> None:
    """Raise UserError where the first actors of stages that one card may be shared by need more of it than it has.

    Args:
        held: bytes of its networks, by stage. card: bytes of the card.
    """
    shares: dict[float, tuple[int, tuple[str, ...]]] = {0.0: (0, ())}
    for stage, size in held.items():
        for used, (others, names) in list(shares.items()):
            together = round(used + pools[stage].gpus, 4)
            if together <= 1 and others + size > shares.get(together, (0, ()))[0]:
                shares[together] = (others + size, (*names, stage))
    most, names = max(shares.values())
    if most > card:
        raise UserError(
            f"the networks of {' and '.join(names)} hold {most / 2**30:.1f} GiB together, and their pools let them "
            f"share a card of {card / 2**30:.1f} GiB: give one a whole card, as --line.pools {names[-1]}=1gpu, or set "
            "--video.offload parts"
        )


def _device(stage: type[Stage], config: FactoryConfig, pool: Pool) -> str:
    devices = [device_for(device, pool, stage.name) for device in stage.devices(config)]
    return "cuda" if "cuda" in devices else "cpu"


def _seen(stage: str, network: Network, machine: str, on_card: bool) -> Need:
    revisions: Weights = {}
    license: str | None = None

    def find() -> None:
        nonlocal license
        place = network.locate()
        license = network.license or _license(network, place)
        if place is not None:
            check_whole(network, place)
            if network.check is not None:
                network.check(place)
        if place is not None and on_card and network.check_card is not None:
            network.check_card(place, _card_bytes())
        revisions.update(revisions_of([network]))

    problem = _problem(find)
    return Need(
        stage=stage, name=network.name, address=network.address, machine=machine, problem=problem, revisions=revisions,
        license=license,
    )  # fmt: skip


def _problem(check: Callable[[], None]) -> str | None:
    try:
        check()
    except (ValueError, RuntimeError, OSError) as error:
        return str(error)
    return None


def _require_cuda() -> None:
    from model.weights import device_of

    device_of("cuda")


def _card_bytes() -> int:
    """Memory of the first card, used or not."""
    import torch

    return torch.cuda.mem_get_info(0)[1]


def check_whole(network: Network, place: Path) -> None:
    """Raise UserError for a folder or file that is half downloaded, or a folder without weights that are read."""
    from factory.weights.pull import sizes_that_differ

    if place.is_file():
        wrong = [clause for clause in sizes_that_differ(place.parent) if clause.startswith(f"{place.name} ")]
        if wrong:
            raise UserError(f"{place.parent} is not whole: {wrong[0]}")
        return
    if parts := sorted(place.rglob("*.part")):
        raise UserError(f"{place} is half downloaded ({parts[0].name} is there)")
    if not any(place.rglob("*.safetensors")):
        pickled = any(place.rglob("*.bin")) or any(place.rglob("*.ckpt"))
        why = "only pickled weights, which are not read" if pickled else "no *.safetensors"
        raise UserError(f"{place} holds {why}: the {network.name} model {network.address!r} is not there yet")
    if wrong := sizes_that_differ(place):
        raise UserError(f"{place} is not whole: {wrong[0]}")


def revisions_of(networks: Iterable[Network]) -> Weights:
    """The revision of each network, and of what lies beside one of our own generators."""
    from model.digests import file_digest, revision_of
    from model.views import VIEWS_FILE
    from model.weights import SIBLINGS, class_name

    found: Weights = {}
    for network in networks:
        place = network.locate()
        if place is None:
            found[network.name] = " ".join(part for part in (network.address, network.revision) if part)
        elif place.is_file():
            found[network.name] = f"sha256:{file_digest(place)}"
            beside = place.parent / VIEWS_FILE
            if place.suffix == ".safetensors" and beside.is_file():
                found[f"{network.name} views"] = f"sha256:{file_digest(beside)}"
        else:
            found[network.name] = revision_of(place)
            if (place / VIEWS_FILE).is_file():
                found[f"{network.name} views"] = f"sha256:{file_digest(place / VIEWS_FILE)}"
            if class_name(place).startswith("Pocket"):
                mark = "" if network.address == "pocket" else f"{network.name} "
                found |= {f"{mark}{part}": revision_of(place.parent / part) for part in SIBLINGS}
    return found


def _license(network: Network, place: Path | None) -> str:
    """What the card beside a network's files states, or `im3d weights pull` wrote there, else the catalogue."""
    from factory.weights.pull import license_in

    folder = place.parent if place is not None and place.is_file() else place
    stated = license_in(folder) if folder is not None else None
    name = known(network.address) or (known(str(folder)) if folder is not None else None)
    return stated or (CATALOGUE[name].license if name else None) or "unknown"


def _on_nodes(stages: Sequence[type[Stage]], config: FactoryConfig, pools: Mapping[str, Pool]) -> list[Need]:
    """One small task a node looks at what the stages need that may have actors there.

    Where the cluster grows on demand, a stage that no node holds yet is looked at on the first one that comes for it.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from factory.line.nodes import living_nodes

    nodes, asked, held = living_nodes(), [], set()
    if not config.line.autoscaling:
        check_nodes(pools, nodes)
    task: Any = ray.remote(num_cpus=0, max_calls=1)(look)  # its process ends, and gives back what it has of a GPU
    for node in nodes:
        here = [stage for stage in stages if node.holds(pools[stage.name])]
        held |= {stage.name for stage in here}
        if here:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked.append(task.options(scheduling_strategy=there).remote(here, config, pools, node.host))
    for stage in stages:
        if stage.name not in held:
            asked.append(task.options(**_as_an_actor(pools[stage.name])).remote([stage], config, pools, "a new node"))
    found: list[Need] = []
    for answer in asked:
        try:
            found += ray.get(answer)
        except RayTaskError:
            raise
        except RayError:  # the node has left meanwhile
            continue
    return found


def _as_an_actor(pool: Pool) -> dict[str, Any]:
    labels = dict(label.split("=", 1) for label in pool.labels)
    return {"num_cpus": pool.cpus, "num_gpus": pool.gpus} | ({"label_selector": labels} if labels else {})


def refuse_missing(needs: Sequence[Need], weights: str | None) -> None:
    """Print a table of all needs where some are missing, and raise.

    Args:
        weights: the folder of pulled networks, if the settings name one.

    Raises:
        UserError: in one sentence, for what is missing and how to get it, or a network that differs between nodes.
    """
    missing = [need for need in needs if need.problem]
    if missing:
        first = missing[0]
        if len(needs) > 1:
            print_table(needs, weights)
        where = "" if first.machine == HERE else f" on {first.machine}"
        more = f" ({len(missing) - 1} more missing, see the table)" if len(missing) > 1 else ""
        way = how_to_get(first, weights)
        raise UserError(f"{first.problem}{where}" + (f": {way}" if way else "") + more)
    seen: dict[str, Need] = {}
    for need in needs:
        other = seen.setdefault(need.name, need)
        if other.revisions != need.revisions:
            raise UserError(
                f"the network {need.name} ({need.address}) is another one on {need.machine} than on {other.machine}: "
                "copy the same files to all nodes, or give an s3:// address"
            )


def print_table(needs: Sequence[Need], weights: str | None) -> None:
    """Every network and machine, whether it is there, and how to get it where it is not."""
    from rich.table import Table

    from factory.line.summary import make_console

    table = Table(title="What the stages need", title_justify="left")
    for column in ("stage", "network", "where", "there", "how to get it"):
        table.add_column(column, overflow="fold")
    for need in needs:
        way = (how_to_get(need, weights) or need.problem) if need.problem else ""
        table.add_row(need.stage, f"{need.name} {need.address}", need.machine, "missing" if way else "yes", way)
    make_console().print(table, markup=False)


def how_to_get(need: Need, weights: str | None) -> str:
    """The command that brings a network of the catalogue; empty for others, whose problem says it."""
    name = known(need.address)
    if name is None or "im3d weights" in (need.problem or "") or need.name == "GPU":
        return ""
    terms = f" --accept-license {name}" if CATALOGUE[name].must_accept else ""
    then = "" if weights else ", and give --weights DIR"
    return f"im3d weights pull {name} --to {weights or 'DIR'}{terms}{then}"
