"""Check that the devices and weights of a run are there, and name them: `preflight`, `find_networks`."""

from __future__ import annotations

from collections.abc import Iterable

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights
from factory.line.device import device_for
from factory.stages.chain import pools_of, stages_of
from factory.stages.columns import USABLE
from factory.stages.survey import Need, refuse_missing, survey
from factory.weights.folder import resolved
from recon.user_error import UserError


def preflight(config: FactoryConfig) -> None:
    """Find out before anything starts whether this machine has the GPU and weights that the settings ask for.

    On a cluster only the chain and its pools are checked: what the nodes lack, `find_networks` finds out.

    Raises:
        UserError: for what is missing and how to get it, a chain whose stages do not fit together, and models on CUDA
            in a stage whose pool reserves no GPU.
    """
    _needs(config)


def find_networks(config: FactoryConfig) -> list[Need]:
    """Check as `preflight` does, and find every network: on a cluster as every node has it.

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
    return needs


def weights_of(needs: Iterable[Need]) -> Weights:
    """The revision of every network."""
    return {name: revision for need in needs for name, revision in need.revisions.items()}


def provenance(needs: Iterable[Need]) -> list[dict[str, str | None]]:
    """Name, revision and licence of every network, as asset rows have them."""
    found = {name: (revision, need.license) for need in needs for name, revision in need.revisions.items()}
    return [{"name": name, "revision": revision, "license": license} for name, (revision, license) in found.items()]


def describe(needs: Iterable[Need]) -> str:
    """The networks with their licences, as "image pocket (apache-2.0), ..."."""
    named = {need.name: f"{need.name} {need.address} ({need.license})" for need in needs if need.license}
    return ", ".join(named.values())


def _needs(config: FactoryConfig) -> list[Need]:
    """What `preflight` finds on this machine: nothing where the line runs on a cluster."""
    config = resolved(config)
    stages, pools = stages_of(config.chain), pools_of(config)
    if config.quality.min and USABLE.name not in {column.name for stage in stages for column in stage.columns()}:
        raise UserError(
            f"quality.min is {config.quality.min:g} and no stage of {config.chain} judges assets: put score into the "
            "chain, or leave quality.min at 0"
        )
    for stage in stages:
        for device in stage.devices(config):
            device_for(device, pools[stage.name], stage.name)
    if config.line.address != "local":
        return []
    needs = survey(stages, config, pools)
    refuse_missing(needs, config.weights)
    return needs
