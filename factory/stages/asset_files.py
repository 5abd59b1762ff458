"""A finished row to files and a table row: re-renders, videos, pictures, cameras."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.config.settings import FactoryConfig, fingerprint
from factory.ledger.keys import digest
from factory.ledger.ledger import file_entry
from factory.ledger.schemas import STAGES, assets_schema, unpack
from factory.line.cost import row_cost
from factory.storage.store import Store

Row = dict[str, Any]


def render_turn(ply: bytes, elevation: float, size: int, config: FactoryConfig) -> NDArray[np.uint8]:
    """Re-render the asset for one turn of the camera: uint8 [T,S,S,4] over white, A is coverage.

    Args:
        ply: the Gaussians.
        elevation: radians.
        size: side of the frames in pixels.
        config: `files.turntable_frames` is T.
    """
    import torch

    from recon.cameras import turntable
    from recon.gaussians import render

    orbit = dataclasses.replace(config.orbit, num_views=config.files.turntable_frames)
    with torch.no_grad():
        rgb, alpha = render(gaussians_of(ply), turntable(elevation, size, orbit))
    pixels = torch.cat([rgb, alpha], -1).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).cpu().numpy()


def ply_bytes(gaussians: Any) -> bytes:
    """Gaussians as the bytes of a 3DGS PLY; raises ValueError where a value is not finite."""
    from recon.ply import write_ply

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "asset.ply")
        write_ply(path, gaussians)
        return path.read_bytes()


def gaussians_of(ply: bytes, name: str = "asset.ply") -> Any:
    """The Gaussians of a 3DGS PLY; `name` is what errors call it."""
    from recon.ply import parse_ply

    return parse_ply(ply, name)


def asset_files(row: Row, config: FactoryConfig) -> dict[str, bytes]:
    """Every file of the asset by name: PLY, videos, image, and the views with their `transforms.json`."""
    from recon.video_io import encode_mp4

    renders, frames = unpack(row["renders"]), unpack(row["frames"])
    views = renders[:: len(renders) // math.gcd(len(renders), config.orbit.num_views)]
    seconds = len(renders) / config.files.turntable_fps
    files = {
        "asset.ply": row["gaussians"],
        "turntable.mp4": encode_mp4(_even(renders[..., :3]), config.files.turntable_fps),
        "generated.mp4": encode_mp4(_even(frames[..., :3]), max(1, round(len(frames) / seconds))),
        "image.png": png(unpack(row["image"])),
        "transforms.json": transforms_json(row["elevation"], views.shape[1], len(views), config),
    }
    if row["mesh"] is not None:
        files["mesh.glb"] = row["mesh"]
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


def transforms_json(elevation: float, size: int, num_views: int, config: FactoryConfig) -> bytes:
    """The cameras of `views/*.png` in nerfstudio's form: camera to world, x right, y up, z backward, world +y up."""
    import torch

    from recon.cameras import turntable

    cameras = turntable(elevation, size, dataclasses.replace(config.orbit, num_views=num_views))
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


def write_asset(store: Store, row: Row, config: FactoryConfig) -> tuple[Row, Any]:
    """Write the asset's files under a key of their own digest; return its table row and schema."""
    files = asset_files(row, config)
    settings = fingerprint(config)
    source = hashlib.sha256(row["source_image"] or b"").hexdigest()
    revisions = [str(row[f"{model}_revision"]) for model in ("image", "video")]
    identity = digest(row["prompt_id"], row["prompt"], source, str(row["seed"]), settings, *revisions)
    content = hashlib.sha256(identity.encode())
    for name, data in sorted(files.items()):
        content.update(name.encode() + hashlib.sha256(data).digest())
    folder = f"files/{row['prompt_id']}-{content.hexdigest()[:10]}"
    for name, data in files.items():
        store.put(f"{folder}/{name}", data)
    scores = dict(row["scores"] or [])
    schema = assets_schema(sorted(scores))
    pools = {stage: getattr(config.line, stage) for stage in STAGES[:-1]}
    named = {
        "ply": "asset.ply",
        "turntable": "turntable.mp4",
        "generated": "generated.mp4",
        "transforms": "transforms.json",
        "mesh": "mesh.glb",
    }
    finished = (
        {name: row.get(name) for name in schema.names} | scores | row_cost(row, pools, config.cost) | {"mesh": None}
    )
    finished |= {column: file_entry(f"{folder}/{name}", files[name]) for column, name in named.items() if name in files}
    finished |= {
        "image": {"bytes": files["image.png"], "path": f"{folder}/image.png"},
        "num_views": config.orbit.num_views,
        "fov_degrees": config.orbit.fov_degrees,
        "distance": config.orbit.distance,
        "fingerprint": identity,
        "config_fingerprint": settings,
    }
    return finished, schema
