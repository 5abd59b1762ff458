"""Check that the devices and weights of a run are there, and name them: `preflight`, `find_weights`."""

from __future__ import annotations

from collections.abc import Sequence

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights
from factory.line.device import device_for
from factory.line.network import Network
from factory.line.stage import Stage
from factory.stages.chain import pools_of, stages_of
from factory.stages.survey import Need, refuse_missing, survey
from factory.weights.folder import resolved


def preflight(config: FactoryConfig) -> None:
    """Find out before anything starts whether this machine has the GPU and weights that the settings ask for.

    On a cluster only the chain and its pools are checked: what the nodes lack, `find_weights` finds out.

    Raises:
        UserError: for what is missing and how to get it, a chain whose stages do not fit together, and models on CUDA
            in a stage whose pool reserves no GPU.
    """
    _needs(config)


def find_weights(config: FactoryConfig) -> Weights:
    """Check as `preflight` does, and the revisions of the weights: on a cluster as every node has them.

    Raises:
        UserError: if something is missing.
    """
    needs = _needs(config)
    if config.line.address != "local":
        from factory.line.ray_session import start_ray

        config = resolved(config)
        start_ray(config.line.address)
        needs = survey(stages_of(config.chain), config, pools_of(config))
        refuse_missing(needs, config.weights)
    return {name: revision for need in needs for name, revision in need.revisions.items()}


def _needs(config: FactoryConfig) -> list[Need]:
    """What `preflight` finds on this machine: nothing where the line runs on a cluster."""
    config = resolved(config)
    stages, pools = stages_of(config.chain), pools_of(config)
    for stage in stages:
        for device in stage.devices(config):
            device_for(device, pools[stage.name], stage.name)
    if config.line.address != "local":
        return []
    needs = survey(stages, config, pools)
    refuse_missing(needs, config.weights)
    return needs


def describe_networks(config: FactoryConfig) -> str:
    """The networks that the chain loads with their licences, as "image pocket (apache-2.0), ..."; weights are there.

    On a cluster this machine has no model cards, so that only licences known without them are named.
    """
    from model.weights import license_of

    config, named = resolved(config), []
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
