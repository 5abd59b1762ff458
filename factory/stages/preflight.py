"""Check that the GPU and weights of a run are there, and name their revisions: `preflight`, `find_weights`."""

from __future__ import annotations

from pathlib import Path

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights
from factory.line.device import device_for


def preflight(config: FactoryConfig) -> None:
    """Find out before anything starts whether this machine has the GPU and weights that the settings ask for.

    Raises:
        RuntimeError: in one sentence that says what is missing and how to get it. On a cluster the actors find out.
        ValueError: the same of the fit's GPU, and of models on CUDA in a stage whose pool reserves no GPU.
    """
    pools = config.line
    device_for(config.image.device, pools.image, "image")
    device_for(config.video.device, pools.video, "video")
    device_for(config.fit.device, pools.reconstruct, "reconstruct")
    if config.refines():
        device_for(config.video.device, pools.reconstruct, "reconstruct")
    if config.line.address != "local":
        return
    from model import weights
    from recon.device import device_of

    device_of(config.fit.device)
    for settings, folder in ((config.image, "image"), (config.video, "video")):
        weights.device_of(settings.device)
        place = weights.locate(settings.model, folder, settings.revision)
        if not any(place.rglob("*.safetensors")):
            raise RuntimeError(
                f"{place} holds no *.safetensors: the {folder} model {settings.model!r} is not there yet"
            )


def find_weights(config: FactoryConfig) -> Weights:
    """Check as `preflight` does, and the revisions of the weights: on a cluster as a node of the image stage has them.

    Raises:
        RuntimeError: if something is missing.
    """
    preflight(config)
    if config.line.address == "local":
        return weights_of(config)
    import ray

    from factory.line.ray_session import start_ray

    start_ray(config.line.address)
    pool = config.line.image
    return ray.get(ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus)(weights_of).remote(config))


def weights_of(config: FactoryConfig) -> Weights:
    """The revisions of every network that the settings use, as this machine has them.

    Raises:
        ValueError: for a model that is none.
        RuntimeError: if weights cannot be had.
    """
    import eval
    import recon
    from model.weights import SIBLINGS, class_name, locate, revision_of

    found = {}
    for name, settings in (("image", config.image), ("video", config.video)):
        folder = locate(settings.model, name, settings.revision)
        found[name] = revision_of(folder)
        if class_name(folder).startswith("Pocket"):
            shared = settings.model == "pocket"
            found |= {f"{'' if shared else f'{name} '}{part}": revision_of(folder.parent / part) for part in SIBLINGS}
    if config.views.elevation is None and config.views.estimator != "pocket":
        found["estimator"] = revision_of(Path(config.views.estimator))
    found["recon"] = revision_of(Path(recon.__path__[0], "weights"))
    judge = Path(eval.__path__[0], "weights") if config.clip.model == "pocket" else Path(config.clip.model)
    found["judge"] = revision_of(judge) if judge.is_dir() else f"{config.clip.model} {config.clip.pretrained}"
    return found
