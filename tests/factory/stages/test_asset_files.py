import hashlib
import io

import numpy as np
import pyarrow as pa
import torch
import trimesh

from factory.config.settings import FactoryConfig, FilesConfig
from factory.ledger.schemas import empty_row, pack
from factory.stages.asset_files import write_asset
from factory.stages.asset_ply import ply_bytes
from factory.stages.asset_table import MadeWith
from factory.storage.store import open_store
from recon.config import MeshConfig
from recon.gaussians import init_ball
from recon.mesh import glb_bytes, mesh_of


def finished_row(mesh: bytes | None) -> dict:
    gaussians = init_ball(400, opacity=0.9, generator=torch.Generator().manual_seed(0))
    frames = np.full((16, 32, 32, 3), 200, np.uint8)
    return empty_row(
        prompt_id="p1",
        prompt="a ball",
        seed=1,
        elevation=0.3,
        image=pack(frames[0]),
        frames=pack(frames),
        gaussians=ply_bytes(gaussians),
        mesh=mesh,
    )


def test_mesh_is_a_file_beside_the_ply_and_named_in_the_row(tmp_path):
    gaussians = init_ball(400, opacity=0.9, generator=torch.Generator().manual_seed(0))
    glb = glb_bytes(mesh_of(gaussians, MeshConfig(resolution=24, texture=0)))
    config = FactoryConfig(files=FilesConfig(turntable_frames=16))
    row, schema = write_asset(open_store(str(tmp_path)), finished_row(glb), config, MadeWith())
    entry = pa.Table.from_pylist([row], schema=schema).to_pylist()[0]["mesh"]
    data = (tmp_path / entry["path"]).read_bytes()
    assert entry["path"] == row["ply"]["path"].replace("asset.ply", "mesh.glb")
    assert (entry["sha256"], entry["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    (read,) = trimesh.load(io.BytesIO(data), file_type="glb").geometry.values()
    assert read.is_watertight


def test_without_a_mesh_its_column_is_null(tmp_path):
    config = FactoryConfig(files=FilesConfig(turntable_frames=16))
    row, schema = write_asset(open_store(str(tmp_path)), finished_row(None), config, MadeWith())
    assert pa.Table.from_pylist([row], schema=schema).to_pylist()[0]["mesh"] is None
    assert not list(tmp_path.rglob("mesh.glb"))
