"""Describe a data set to machines by Croissant 1.0, as MLCommons' validator reads it: `croissant_json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform", "equivalentProperty"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS},
}
_CITE = (
    "Melas-Kyriazi et al.: IM-3D: Iterative Multiview Diffusion and Reconstruction for High-Quality 3D Generation, 2024"
)
_FORMATS = {"parquet": "application/x-parquet", "tar": "application/x-tar"}
_KINDS = ((pa.types.is_string, "sc:Text"), (pa.types.is_integer, "sc:Integer"), (pa.types.is_floating, "sc:Float"))


def croissant_json(
    name: str, schema: pa.Schema, shards: Mapping[str, tuple[str, int]], licenses: Sequence[str], version: int, day: str
) -> bytes:
    """`croissant.json` of a data set.

    Args:
        name: of the folder.
        schema: of its rows; records are described of parquet only.
        shards: SHA-256 and bytes of each shard by its path.
        licenses: of the models.
        version: number of commits.
        day: of publication, as 2026-12-01.
    """
    suffix = next(iter(shards)).rsplit(".", 1)[-1]
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name),
        "description": "3D assets that models made from prompts and pictures, with scores and provenance.",
        "license": list(licenses),
        "url": "./",
        "version": f"1.{version}.0",
        "datePublished": day,
        "creator": {"@type": "sc:Organization", "name": "im3d-factory"},
        "citeAs": _CITE,
        "distribution": [_file(path, *about) for path, about in shards.items()],
    }
    if suffix == "parquet":
        document["distribution"].append(
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "encodingFormat": _FORMATS["parquet"],
                "includes": "data/*.parquet",
            }
        )
        document["recordSet"] = [{"@type": "cr:RecordSet", "@id": "assets", "field": list(_fields(schema))}]
    return json.dumps(document, indent=1).encode()


def _file(path: str, digest: str, size: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "contentUrl": path,
        "encodingFormat": _FORMATS[path.rsplit(".", 1)[-1]],
        "sha256": digest,
        "contentSize": f"{size} B",
    }


def _fields(schema: pa.Schema) -> Any:
    """Columns of text and numbers, and the picture."""
    for column in schema:
        kind = next((name for is_kind, name in _KINDS if is_kind(column.type)), None)
        field = {"@type": "cr:Field", "@id": f"assets/{column.name}", "dataType": kind}
        source: dict[str, Any] = {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}}
        if column.name == "image":
            field["dataType"], source["transform"] = "sc:ImageObject", {"jsonPath": "bytes"}
        if field["dataType"]:
            yield field | {"source": source}
