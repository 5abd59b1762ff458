"""Write Gaussians as the 32-byte `.splat` of web viewers, without harmonics: `splat_bytes`."""

from __future__ import annotations

import numpy as np

from recon.gaussians import Gaussians

RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def splat_bytes(gaussians: Gaussians) -> bytes:
    """The Gaussians as `.splat`, largest and most opaque first; view-dependent colour is left out.

    Raises:
        ValueError: if a value is not finite.
    """
    scales, alphas = gaussians.standard_deviations, gaussians.alphas
    colours = gaussians.base_colours
    records = np.zeros(len(gaussians), RECORD)
    records["mean"], records["scale"] = gaussians.means.cpu().numpy(), scales.cpu().numpy()
    floats = np.concatenate([colours.cpu().numpy(), alphas[:, None].cpu().numpy()], 1)
    quats = gaussians.unit_quats.cpu().numpy()
    for name, values in (("means", records["mean"]), ("scales", records["scale"]), ("quats", quats), ("sh0", floats)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} hold values that are not finite; remove those Gaussians first")
    records["rgba"] = np.rint(255 * floats)
    records["quat"] = np.rint(quats * 128 + 128).clip(0, 255)
    order = np.argsort(-(records["scale"].prod(1) * floats[:, 3]), kind="stable")
    return records[order].tobytes()
