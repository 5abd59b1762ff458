"""Write an asset in one format, as files by name: `files_of`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from factory.ledger.finished_assets import read
from factory.outputs.export_settings import CONVERTED, MESHES, ExportConfig
from factory.outputs.provenance import notes_of, written_into_ply
from factory.storage.interface import StorageConfig

if TYPE_CHECKING:
    from recon.gaussians import Gaussians

Row = dict[str, Any]
UNIT_SPHERE = "unit sphere"


def files_of(row: Row, config: ExportConfig, storage: StorageConfig) -> dict[str, bytes]:
    """The files of an asset, a row of FINISHED, below its own id.

    Raises:
        ValueError: for an asset that cannot be written in this format.
    """
    name, kind = row["prompt_id"], config.format
    if kind == "glb":
        return {f"{name}.glb": _mesh(row, config, storage)}
    if kind in MESHES:
        return _usd(row, config, storage)
    ply = read(row, "ply", storage)
    if kind in ("nerfstudio", "colmap", "splat-lod"):
        return {f"{name}/{file}": data for file, data in _folder(row, ply, config).items()}
    if kind == "webdataset":
        return {f"samples/{name}.tar": _sample(row, ply, config, storage)}
    return {f"{name}.{CONVERTED.get(kind, kind)}": _gaussian_file(row, ply, config)}


def _gaussian_file(row: Row, ply: bytes, config: ExportConfig) -> bytes:
    from factory.outputs.splat_transform import convert
    from recon.splat import splat_bytes

    kind, gaussians = config.format, parsed(ply, row)
    if kind == "ply":
        return written_into_ply(ply, notes_of(row))
    if kind == "splat":
        return splat_bytes(gaussians)
    if kind == "splat-glb":
        return _splat_glb(row, ply, gaussians, config)
    options = ("--spz-version", str(config.spz_version)) if kind == "spz" else ()
    data = convert(ply, CONVERTED[kind], config.splat_transform, options)
    return written_into_ply(data, notes_of(row)) if kind == "compressed-ply" else data


def _splat_glb(row: Row, ply: bytes, gaussians: Gaussians, config: ExportConfig) -> bytes:
    """KHR_gaussian_splatting: linear scales, quaternions xyzw, +y up."""
    from factory.outputs.glb import Glb
    from factory.outputs.splat_transform import convert

    side = float((gaussians.means.amax(0) - gaussians.means.amin(0)).max()) if len(gaussians) else 0.0
    factor, unit = _unit(row, config, side)
    options = ("-s", repr(factor)) if factor != 1 else ()
    glb = Glb.parse(convert(ply, "glb", config.splat_transform, options))
    glb.note(notes_of(row) | unit)
    return glb.to_bytes()


def _mesh(row: Row, config: ExportConfig, storage: StorageConfig) -> bytes:
    from factory.outputs.glb import Glb

    glb = Glb.parse(mesh_of_asset(row, config, storage))
    factor, unit = _unit(row, config, glb.longest_side())
    if config.lods:
        glb.add_levels(config.lods)
    if factor != 1:
        glb.scale(factor)
    glb.note(notes_of(row) | unit)
    return glb.to_bytes()


def _usd(row: Row, config: ExportConfig, storage: StorageConfig) -> dict[str, bytes]:
    from factory.outputs.glb import Glb
    from factory.outputs.usd import usd_files, usdz_bytes

    data, name = mesh_of_asset(row, config, storage), row["prompt_id"]
    factor, unit = _unit(row, config, Glb.parse(data).longest_side())
    if config.format == "usdz":
        return {f"{name}.usdz": usdz_bytes(data, notes_of(row) | unit, factor)}
    return {f"{name}/{file}": data for file, data in usd_files(data, notes_of(row) | unit, factor).items()}


def mesh_of_asset(row: Row, config: ExportConfig, storage: StorageConfig) -> bytes:
    """The run's own mesh of an asset as GLB, or one made of its Gaussians."""
    from recon.mesh import glb_bytes, mesh_of

    if row["mesh"]:
        return read(row, "mesh", storage)
    return glb_bytes(mesh_of(parsed(read(row, "ply", storage), row), config.mesh))


def _unit(row: Row, config: ExportConfig, side: float) -> tuple[float, Row]:
    """Metres a unit of the asset whose longest side is `side`, or 1 where no size is known; and what is noted of it."""
    size = config.size_metres or row["size_metres"]
    if size is None:
        return 1.0, {"unit": UNIT_SPHERE}
    if not side > 0:
        raise ValueError(f"the asset has no extent, so it cannot be {size:g} m long; export it without a size")
    return size / side, {"unit": "metre", "size_metres": size}


def _folder(row: Row, ply: bytes, config: ExportConfig) -> dict[str, bytes]:
    from factory.outputs import training_formats
    from factory.outputs.colmap import colmap_files
    from factory.outputs.splat_transform import streamed_levels

    gaussians, notes = parsed(ply, row), json.dumps(notes_of(row), indent=1).encode()
    if config.format == "splat-lod":
        return {**streamed_levels(ply, config.lods, config.splat_transform), "provenance.json": notes}
    pictures = training_formats.pictures_of(gaussians, row["elevation"], config)
    if config.format == "colmap":
        return {**colmap_files(pictures, gaussians), "provenance.json": notes}
    points = training_formats.point_cloud(gaussians)
    return {**training_formats.nerfstudio_files(pictures, ply, points), "provenance.json": notes}


def _sample(row: Row, ply: bytes, config: ExportConfig, storage: StorageConfig) -> bytes:
    from factory.outputs import training_formats

    pictures = training_formats.pictures_of(parsed(ply, row), row["elevation"], config)
    return training_formats.tar_bytes(training_formats.sample_files(row, pictures, ply, image_of(row, storage)))


def image_of(row: Row, storage: StorageConfig) -> bytes | None:
    """The picture that an asset was made from, where there is one."""
    return read(row, "image", storage) if row["image"] else None


def parsed(ply: bytes, row: Row) -> Gaussians:
    """The Gaussians of an asset's PLY; ValueError where it is none."""
    from factory.stages.asset_ply import gaussians_of

    return gaussians_of(ply, row["ply"])
