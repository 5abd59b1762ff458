"""Write the files of a finished row: `write_asset`; turntable, pictures, cameras, Gaussians, mesh."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.ledger.schemas import unpack
from factory.stages.asset_table import MadeWith, asset_row, identity_of
from factory.stages.renders import render_turn, view_step
from factory.stages.view_plans import orbit_of
from factory.storage.store import Store
from recon.config import OrbitConfig

Row = dict[str, Any]


def asset_files(row: Row, config: Any, device: str = "cpu") -> dict[str, bytes]:
    """Every file of the asset by name: PLY, turntable, image, the views with their `transforms.json`, and the generated
    frames and the mesh where the row has them; ValueError where no frame of the turntable shows anything.

    Args:
        config: the settings `orbit` and `files`.
    """
    from recon.meshes.load import check_drawn
    from recon.video_io import encode_mp4

    renders = render_turn(row, config, device)
    check_drawn(renders)
    views = renders[:: view_step(config)]
    orbit = replace(orbit_of(row, config.orbit), num_views=len(views))
    files = {
        "asset.ply": bytes(row["gaussians"]),
        "turntable.mp4": encode_mp4(_even(renders[..., :3]), config.files.turntable_fps),
        "image.png": png(unpack(row["image"])),
        "transforms.json": transforms_json(row["elevation"], views.shape[1], orbit),
    }
    if row.get("frames") is not None:
        frames, seconds = unpack(row["frames"]), len(renders) / config.files.turntable_fps
        files["generated.mp4"] = encode_mp4(_even(frames[..., :3]), max(1, round(len(frames) / seconds)))
    if row.get("mesh") is not None:
        files["mesh.glb"] = bytes(row["mesh"])
    return files | {f"views/{k:02d}.png": png(view) for k, view in enumerate(views)}


def _even(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames cut to even sides, as h264 wants them."""
    return np.ascontiguousarray(frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2])


def png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of uint8 [H,W,3], or of [H,W,4] over white as straight alpha."""
    from PIL import Image

    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.float32)
        colour = (pixels[..., :3] - (255 - alpha)) * 255 / np.maximum(alpha, 1)
        pixels = np.concatenate([np.rint(colour.clip(0, 255)).astype(np.uint8), pixels[..., 3:]], -1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def transforms_json(elevation: float, size: int, orbit: OrbitConfig) -> bytes:
    """The cameras of `views/*.png` in nerfstudio's form: camera to world, x right, y up, z backward, world +y up."""
    import torch

    from recon.cameras import turntable

    cameras = turntable(elevation, size, orbit)
    to_world = torch.linalg.inv(cameras.viewmats.double()) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).double()
    focal, centre = float(cameras.Ks[0, 0, 0]), float(cameras.Ks[0, 0, 2])
    document = {
        "camera_model": "OPENCV",
        "w": size,
        "h": size,
        "fl_x": focal,
        "fl_y": focal,
        "cx": centre,
        "cy": centre,
        "ply_file_path": "asset.ply",
        "frames": [
            {"file_path": f"views/{k:02d}.png", "transform_matrix": matrix}
            for k, matrix in enumerate(to_world.tolist())
        ],
    }
    return json.dumps(document, indent=1).encode()


def write_asset(
    store: Store, row: Row, config: Any, made_with: MadeWith, device: str = "cpu", root: str = "files"
) -> tuple[Row, Any]:
    """Write the asset's files under a key of their own digest below `root`; return its table row and schema.

    Args:
        config: the settings `orbit`, `files` and `cost`.
        device: where the turntable is rendered.
    """
    files = asset_files(row, config, device)
    content = hashlib.sha256(identity_of(row, made_with).encode())
    for name, data in sorted(files.items()):
        content.update(name.encode() + hashlib.sha256(data).digest())
    folder = f"{root}/{row['prompt_id']}-{content.hexdigest()[:10]}"
    for name, data in files.items():
        store.put(f"{folder}/{name}", data)
    return asset_row(row, files, folder, config, made_with)
