"""Write assets as training data for other models, with depth, normals, masks and cameras: `pictures_of`, `hf_row`.

One asset is a nerfstudio folder, a sample of a WebDataset tar shard, or a row of a parquet that `datasets` reads.
Depth is in thousandths of a world unit along the camera's axis, 0 where there is nothing; normals are world
vectors as (n + 1) / 2; images have straight alpha. The object lies in the unit sphere, +y up.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory.ledger.schemas import IMAGE
from factory.outputs.export_settings import ExportConfig
from factory.outputs.provenance import notes_of
from factory.stages.asset_files import png

if TYPE_CHECKING:
    from recon.cameras import Cameras
    from recon.gaussians import Gaussians
    from recon.views import Views

Row = dict[str, Any]

DEPTH_UNIT = 0.001
DEFAULT_ELEVATION = 0.3
"""Radians, for loose PLY files, whose turntable is not known."""
PICTURES = ("images", "depths", "normals", "masks")
HF_ROWS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("license", pa.string()),  # one statement for the asset
        ("models", pa.string()),  # JSON: by part of the line its model, revision and licence
        ("image", IMAGE),  # what the asset was made from
        *[(name, pa.list_(IMAGE)) for name in PICTURES],
        ("transforms", pa.list_(pa.list_(pa.float64(), 16))),  # camera to world, OpenGL axes, row by row
        *[("size", pa.int32()), ("focal", pa.float64())],  # pixels
        ("ply", pa.large_binary()),  # 3D Gaussian splatting PLY
    ],
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {"image": {"_type": "Image"}}
                    | {name: {"_type": "List", "feature": {"_type": "Image"}} for name in PICTURES}
                }
            }
        )
    },
)
CARD = """---
configs:
- config_name: default
  data_files: data/*.parquet
---
# Rendered 3D assets

One row an asset: {num_views} views of {size} pixels a turn with `depths` (16 bit, thousandths of a world unit along
the camera's axis, 0: nothing), `normals` (world, (n + 1) / 2), `masks`, `transforms` (camera to world, OpenGL axes,
world +y up, row by row), `focal` in pixels, and the Gaussians as `ply`. Read it with
`datasets.load_dataset("<this folder>")`.
"""


@dataclass(kw_only=True, slots=True)
class Pictures:
    """Encoded pictures of V views, their cameras to world [V,4,4] (OpenGL axes), side and focal length in pixels."""

    images: list[bytes]
    depths: NDArray[np.uint16]
    """[V,S,S], thousandths."""
    normals: list[bytes]
    masks: list[bytes]
    transforms: list[list[list[float]]]
    size: int
    focal: float


def pictures_of(gaussians: Gaussians, elevation: float | None, config: ExportConfig) -> Pictures:
    """Render an asset from the wanted elevations; `elevation` is its own, in radians, or None."""
    import torch

    from recon.views import render_views

    angles = [math.radians(angle) for angle in config.elevations_degrees]
    cameras = _cameras(angles or [DEFAULT_ELEVATION if elevation is None else elevation], config)
    views: Views = render_views(gaussians, cameras)
    to_world = torch.linalg.inv(cameras.viewmats.double()) @ torch.diag(torch.tensor([1.0, -1, -1, 1])).double()
    normals = np.rint((views.normals + 1) * 127.5).astype(np.uint8) * (views.depth > 0)[..., None].astype(np.uint8)
    return Pictures(
        images=[png(view) for view in views.rgba],
        depths=np.rint(views.depth / DEPTH_UNIT).clip(0, 65535).astype(np.uint16),
        normals=[png(view) for view in normals],
        masks=[grey_png(view[..., 3]) for view in views.rgba],
        transforms=to_world.tolist(),
        size=config.size,
        focal=float(cameras.Ks[0, 0, 0]),
    )


def _cameras(elevations: Sequence[float], config: ExportConfig) -> Cameras:
    import torch

    from recon.cameras import Cameras, turntable
    from recon.config import OrbitConfig

    turns = [turntable(angle, config.size, OrbitConfig(num_views=config.num_views)) for angle in elevations]
    viewmats, Ks = torch.cat([turn.viewmats for turn in turns]), torch.cat([turn.Ks for turn in turns])
    return Cameras(viewmats=viewmats, Ks=Ks, size=config.size)


def grey_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """PNG of [H,W], 8 or 16 bits deep."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def nerfstudio_files(pictures: Pictures, ply: bytes, points: bytes) -> dict[str, bytes]:
    """The files of a nerfstudio data folder by name.

    Masks are not named as `mask_path`, since nerfstudio would then leave the background, which is empty, out of
    training; the images' alpha says the same.

    Args:
        ply: the Gaussians. points: their centres as a coloured point cloud, where splatfacto starts.
    """
    files, frames = {"asset.ply": ply, "points.ply": points}, []
    encoded = {
        "images": pictures.images,
        "depths": [grey_png(depth) for depth in pictures.depths],
        "normals": pictures.normals,
        "masks": pictures.masks,
    }
    for k, matrix in enumerate(pictures.transforms):
        names = {kind: f"{kind}/{k:03d}.png" for kind in PICTURES}
        files |= {name: encoded[kind][k] for kind, name in names.items()}
        paths = {"file_path": names["images"], "depth_file_path": names["depths"], "normal_file_path": names["normals"]}
        frames.append(paths | {"transform_matrix": matrix})
    document = {
        "camera_model": "OPENCV",
        **dict.fromkeys(("w", "h"), pictures.size),
        **dict.fromkeys(("fl_x", "fl_y"), pictures.focal),
        **dict.fromkeys(("cx", "cy"), pictures.size / 2),
        "depth_unit_scale_factor": DEPTH_UNIT,
        "ply_file_path": "points.ply",
        "frames": frames,
    }
    return files | {"transforms.json": json.dumps(document, indent=1).encode()}


def point_cloud(gaussians: Gaussians) -> bytes:
    """The centres of the Gaussians with their colours as an ordinary PLY."""
    from trimesh import PointCloud

    colours = gaussians.base_colours.mul(255).round().byte().cpu().numpy()
    data = PointCloud(gaussians.means.cpu().numpy(), colours).export(file_type="ply")
    return data if isinstance(data, bytes) else str(data).encode()


def sample_files(row: Row, pictures: Pictures, ply: bytes, image: bytes | None) -> dict[str, bytes]:
    """One WebDataset sample: `<key>.<field>`; the key is the prompt id with dots as %2E, since a dot ends a key."""
    key = row["prompt_id"].replace(".", "%2E")
    depths = io.BytesIO()
    np.savez_compressed(depths, depths=pictures.depths)
    about = {name: row[name] for name in ("prompt_id", "prompt", "seed")} | notes_of(row)
    about |= {"size": pictures.size, "focal": pictures.focal, "transforms": pictures.transforms}
    files = {"json": json.dumps(about).encode(), "ply": ply, "depths.npz": depths.getvalue()}
    files |= {"image.png": image} if image else {}
    for field, encoded in (("rgba", pictures.images), ("normal", pictures.normals), ("mask", pictures.masks)):
        files |= {f"{k:03d}.{field}.png": data for k, data in enumerate(encoded)}
    return {f"{key}.{field}": data for field, data in files.items()}


def hf_row(row: Row, pictures: Pictures, ply: bytes, image: bytes | None) -> Row:
    """One row of HF_ROWS."""
    encoded = {
        "images": pictures.images,
        "depths": [grey_png(depth) for depth in pictures.depths],
        "normals": pictures.normals,
        "masks": pictures.masks,
    }
    columns = {
        kind: [{"bytes": data, "path": f"{k:03d}.png"} for k, data in enumerate(encoded[kind])] for kind in PICTURES
    }
    return columns | {
        **{name: row[name] for name in ("prompt_id", "prompt", "seed", "license", "models")},
        "image": {"bytes": image, "path": "image.png"} if image else None,
        "transforms": [[value for line in matrix for value in line] for matrix in pictures.transforms],
        "size": pictures.size,
        "focal": pictures.focal,
        "ply": ply,
    }


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar; the same files give the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
