"""Work out how large the generators are and what they need of a GPU, without one: `measure`.

    python -m benchmarks.model_sizes

Weights are counted, and so are the tensors alive at once in one step of the sampler for one sample, with attention that
holds no scores, and in decoding its video. Allocators and kernels' workspaces come on top: expect a tenth more.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from benchmarks.full_size import FULL_SIZES, META, FullSize, PeakBytes, attention_without_scores

GIB = 2**30
COLUMNS = ("generator", "network, 1e9", "16 bit", "8 bit", "step", "decoding", "all there", "in parts", "parts, 8 bit")


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


def main() -> None:
    """Print the table, and last one line of JSON."""
    from diffusers.utils import logging

    logging.set_verbosity_error()
    print(f"{COLUMNS[0]:24}" + "".join(f"{name:>14}" for name in COLUMNS[1:]) + "   (GiB)")
    found = []
    for row in FULL_SIZES:
        found.append(measure(row))
        name, count, *sizes = found[-1].values()
        print(f"{name:24}{count / 1e9:14.3f}" + "".join(f"{size:14.1f}" for size in sizes), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
