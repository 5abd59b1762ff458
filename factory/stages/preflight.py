"""Check that the devices and weights of a run are there, and name them: `preflight`, `find_weights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights
from factory.line.device import device_for
from factory.line.network import Network
from factory.line.placement import Pool
from factory.line.stage import Stage
from factory.stages.chain import pools_of, stages_of
from factory.storage.user_error import UserError, as_user_error


@as_user_error()
def preflight(config: FactoryConfig) -> None:
    """Find out before anything starts whether this machine has the GPU and weights that the settings ask for.

    On a cluster only the chain and its pools are checked: what the nodes lack, `find_weights` finds out.

    Raises:
        UserError: for what is missing and how to get it, a chain whose stages do not fit together, and models on CUDA
            in a stage whose pool reserves no GPU.
    """
    stages, pools = stages_of(config.chain), pools_of(config)
    for stage in stages:
        for device in stage.devices(config):
            device_for(device, pools[stage.name], stage.name)
    if config.line.address == "local":
        for stage in stages:
            _check(stage, config, pools[stage.name])


@as_user_error()
def find_weights(config: FactoryConfig) -> Weights:
    """Check as `preflight` does, and the revisions of the weights: on a cluster as a node of each stage has them.

    Raises:
        UserError: if something is missing.
    """
    preflight(config)
    stages = stages_of(config.chain)
    if config.line.address == "local":
        return weights_of(config)
    from factory.line.ray_session import start_ray

    start_ray(config.line.address)
    return _on_nodes(stages, config, pools_of(config))


def weights_of(config: FactoryConfig) -> Weights:
    """The revisions of every network that the chain loads, as this machine has them.

    Raises:
        UserError: for a model that is none.
        RuntimeError: if weights cannot be had.
    """
    return _revisions(list(_networks(stages_of(config.chain), config).values()))


def describe_networks(config: FactoryConfig) -> str:
    """The networks that the chain loads with their licences, as "image pocket (apache-2.0), ..."; weights are there.

    On a cluster this machine has no model cards, so that only licences known without them are named.
    """
    from model.weights import license_of

    named = []
    for network in _networks(stages_of(config.chain), config).values():
        known = network.license
        if known is None and config.line.address == "local" and (place := network.locate()) is not None:
            known = license_of(place)
        named.append(f"{network.name} {network.address}" + (f" ({known})" if known else ""))
    return ", ".join(named)


def _networks(stages: Sequence[type[Stage]], config: FactoryConfig) -> dict[str, Network]:
    """By name, each once."""
    found: dict[str, Network] = {}
    for stage in stages:
        for network in stage.networks(config):
            found.setdefault(network.name, network)
    return found


def _on_nodes(stages: Sequence[type[Stage]], config: FactoryConfig, pools: Mapping[str, Pool]) -> Weights:
    """Each stage checked on a node that may have its actors; a network is looked at where it is first loaded."""
    import ray

    asked, seen = [], set()
    for stage in stages:
        fresh = [network for network in stage.networks(config) if network.name not in seen]
        seen |= {network.name for network in fresh}
        pool = pools[stage.name]
        labels = dict(label.split("=", 1) for label in pool.labels)
        options: dict[str, Any] = {"label_selector": labels} if labels else {}
        task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, **options)(_checked)
        asked.append(task.remote(stage, config, pool, fresh))
    return {name: revision for found in ray.get(asked) for name, revision in found.items()}


def _checked(stage: type[Stage], config: FactoryConfig, pool: Pool, networks: Sequence[Network]) -> Weights:
    _check(stage, config, pool)
    return _revisions(networks)


def _check(stage: type[Stage], config: FactoryConfig, pool: Pool) -> None:
    """Raises where a stage's devices or weights are missing on this machine."""
    if "cuda" in (device_for(device, pool, stage.name) for device in stage.devices(config)):
        from model.weights import device_of

        device_of("cuda")
    for network in stage.networks(config):
        place = network.locate()
        if place is not None and place.is_dir() and not any(place.rglob("*.safetensors")):
            raise UserError(
                f"{place} holds no *.safetensors: the {network.name} model {network.address!r} is not there yet"
            )


def _revisions(networks: Sequence[Network]) -> Weights:
    """The revision of each network, and of what lies beside one of our own generators."""
    from model.digests import file_digest, revision_of
    from model.weights import SIBLINGS, class_name

    found: Weights = {}
    for network in networks:
        place = network.locate()
        if place is None:
            found[network.name] = " ".join(part for part in (network.address, network.revision) if part)
        elif place.is_file():
            found[network.name] = f"sha256:{file_digest(place)}"
        else:
            found[network.name] = revision_of(place)
            if class_name(place).startswith("Pocket"):
                mark = "" if network.address == "pocket" else f"{network.name} "
                found |= {f"{mark}{part}": revision_of(place.parent / part) for part in SIBLINGS}
    return found
