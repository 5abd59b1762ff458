"""Work out how large the generators are and what they need of a GPU, without one: `measure`, `measure_training`.

    python -m benchmarks.model_sizes

Weights are counted, and so are the tensors alive at once in one step of the sampler for one sample, with attention that
holds no scores, and in decoding its video. Training is a step of one turntable with activations recomputed, AdamW and
the average of the weights, all on one card; FSDP shares all but the step among cards. Allocators and kernels'
workspaces come on top: expect a tenth more.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from benchmarks.full_size import FULL_SIZES, META, FullSize, PeakBytes, attention_without_scores
from benchmarks.full_training import TRAINED, in_training, losses_without_values, trainable

GIB = 2**30
COLUMNS = ("generator", "network, 1e9", "16 bit", "8 bit", "step", "decoding", "all there", "in parts", "parts, 8 bit")
TRAINING = ("target", "trained, 1e9", "weights", "states", "step", "all there")


def measure(row: FullSize) -> dict[str, Any]:
    """GiB of the network's weights in 16 and 8 bits, a step, decoding, and of the card for three ways to run it."""
    model = row.build()
    networks = model.parts.networks if row.family else {"unet": model}
    bytes_of = {name: sum(p.nbytes for p in part.parameters()) for name, part in networks.items()}
    network = networks[model.network_name if row.family else "unet"]
    count = sum(p.numel() for p in network.parameters())
    with torch.no_grad(), attention_without_scores():
        with PeakBytes(networks.values()) as step:
            row.step(model)
        with PeakBytes(networks.values()) as decoding:
            if row.family:
                model.decode(torch.zeros(model.latent_shape(row.size), device=META))
    weights = bytes_of[model.network_name if row.family else "unet"]
    others = [size for name, size in bytes_of.items() if not name.startswith(("unet", "transformer"))]
    vae = bytes_of.get("vae", 0)
    alone = {
        bits: max(share * weights + step.peak, vae + decoding.peak, *others, 0) for bits, share in ((16, 1), (8, 0.5))
    }
    whole = sum(bytes_of.values()) + max(step.peak, decoding.peak)
    sizes = {"weights": weights, "weights_8": weights / 2, "step": step.peak, "decoding": decoding.peak,
             "all": whole, "parts": alone[16], "parts_8": alone[8]}  # fmt: skip
    return {"name": row.name, "parameters": count, **{name: round(size / GIB, 2) for name, size in sizes.items()}}


def measure_training(row: FullSize) -> dict[str, Any]:
    """GiB of all weights, of what the optimiser and the average hold, and of a step with its gradients.

    There is no autocast on the meta device: a step of I2VGen-XL, SVD or SV3D counts its activations in float32, up to
    twice what they are.
    """
    with losses_without_values(), attention_without_scores():
        made = in_training(row, META)
        weights = sum(p.nbytes for p in made.loss.parameters())
        with PeakBytes([made.loss]) as step:
            made.loss(made.batch, torch.Generator().manual_seed(0))[0].backward()
    states = 3 * sum(p.nbytes for p in made.trained)
    sizes = {"weights": weights, "states": states, "step": step.peak, "all": weights + states + step.peak}
    count = sum(p.numel() for p in made.trained)
    return {"name": f"{TRAINED[row.name]} ({row.name})", "trained": count,
            **{name: round(size / GIB, 2) for name, size in sizes.items()}}  # fmt: skip


def show(row: dict[str, Any], width: int) -> None:
    """Print a line of a table."""
    name, count, *sizes = row.values()
    print(f"{name:{width}}{count / 1e9:14.3f}" + "".join(f"{size:14.1f}" for size in sizes), flush=True)


def main() -> None:
    """Print the tables, and last one line of JSON."""
    from diffusers.utils import logging

    logging.set_verbosity_error()
    print(f"{COLUMNS[0]:24}" + "".join(f"{name:>14}" for name in COLUMNS[1:]) + "   (GiB)")
    found: list[dict[str, Any]] = []
    for row in FULL_SIZES:
        found.append(measure(row))
        show(found[-1], 24)
    print(f"\n{TRAINING[0]:36}" + "".join(f"{name:>14}" for name in TRAINING[1:]) + "   (GiB)")
    for row in trainable():
        found.append(measure_training(row))
        show(found[-1], 36)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
