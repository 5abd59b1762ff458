"""Walk the scene of a glTF and collect what it draws: `read_gltf`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.meshes.beside import Beside
from recon.meshes.gltf.accessors import Accessors
from recon.meshes.gltf.document import Document
from recon.meshes.gltf.extensions import extensions_of
from recon.meshes.gltf.fields import Fields
from recon.meshes.gltf.materials import Materials
from recon.meshes.gltf.nodes import MAX_NODES, Nodes, rotation
from recon.meshes.gltf.primitive import Primitives, Skinning
from recon.meshes.parts import Part, turned_normals
from recon.meshes.textures import Textures

_INSTANCING = "EXT_mesh_gpu_instancing"


def read_gltf(data: bytes, beside: Beside, textures: Textures, max_faces: int) -> list[Part]:
    """What the default scene of a GLB or glTF draws, in its rest pose and with its morph targets' default weights.

    Args:
        data: the file. beside: the files that it names. textures: get its images.
        max_faces: most triangles of the scene, counted with all instances before any is made.

    Raises:
        ValueError: when it is broken, passes a limit, or uses what is not read; the sentence names it.
    """
    document = Document(data, beside)
    accessors = Accessors(document)
    scene = _Scene(document, accessors, Primitives(document, accessors, Materials(document, textures)), Nodes(document))
    drawn = list(scene.drawn(max_faces))
    return [part for node, turns in drawn for part in scene.parts(node, turns)]


@dataclass(slots=True)
class _Scene:
    document: Document
    accessors: Accessors
    primitives: Primitives
    nodes: Nodes

    def drawn(self, max_faces: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The nodes with a mesh that are seen, and where [N,4,4] each one's instances stand."""
        total = 0
        for node in self.nodes.visible():
            fields = self.nodes.fields(node)
            if "mesh" not in fields:
                continue
            mesh = self.document.item("meshes", fields.whole("mesh"))
            extensions_of(mesh)
            faces = sum(map(self.primitives.num_faces, mesh.children("primitives")))
            turns = self._instances(node)
            total += len(turns) * faces
            if total > max_faces:
                raise ValueError(f"asset has over {max_faces} faces with its instances: decimate it first")
            if faces:
                yield node, turns

    def parts(self, node: int, turns: NDArray[np.float64]) -> Iterator[Part]:
        """What a node draws, in the scene's space."""
        fields = self.nodes.fields(node)
        mesh = self.document.item("meshes", fields.whole("mesh"))
        weights = (fields if "weights" in fields else mesh).items("weights")
        weights = Fields({"weights": weights}, fields.where).numbers("weights", (0.0,) * len(weights))
        skin = fields.optional("skin")
        skinning = None if skin is None else self._skinning(skin)
        for primitive in mesh.children("primitives"):
            if not self.primitives.num_faces(primitive):
                continue
            part = self.primitives.part(primitive, weights, skinning)
            if skinning is not None and "JOINTS_0" in primitive.child("attributes"):
                yield part  # the joints say where it is, and its node does not
                continue
            for turn in turns:
                corners = part.corners @ turn[:3, :3].T + turn[:3, 3]
                yield replace(part, corners=corners, normals=turned_normals(part.normals, turn[:3, :3]))

    def _instances(self, node: int) -> NDArray[np.float64]:
        """Where a node's mesh stands [N,4,4], N = 1 without EXT_mesh_gpu_instancing."""
        world, fields = self.nodes.world(node), self.nodes.fields(node)
        extension = extensions_of(fields).get(_INSTANCING)
        if extension is None:
            return world[None]
        attributes = extension.child("attributes")
        widths = {"TRANSLATION": 3, "ROTATION": 4, "SCALE": 3}
        given = {name: self.accessors.rows(attributes.whole(name), f"{attributes.where}.{name}", (width,))
                 for name, width in widths.items() if name in attributes}  # fmt: skip
        sizes = {len(rows) for rows in given.values()}
        if len(sizes) != 1 or max(sizes) > MAX_NODES:
            raise ValueError(f"{attributes.where} lists {sorted(sizes)} instances; it must be one number up to "
                             f"{MAX_NODES}")  # fmt: skip
        at = {name: rows.at(slice(None)) for name, rows in given.items()}
        turns = np.tile(np.eye(4), (sizes.pop(), 1, 1))
        if "ROTATION" in at:
            turns[:, :3, :3] = rotation(at["ROTATION"], f"{attributes.where}.ROTATION")
        turns[:, :3, :3] *= at.get("SCALE", np.ones((1, 3)))[:, None]
        turns[:, :3, 3] = at.get("TRANSLATION", 0.0)
        return world @ turns

    def _skinning(self, index: int) -> Skinning:
        """How a skin moves what hangs on its joints, in the pose that the nodes are in."""
        fields = self.document.item("skins", index)
        extensions_of(fields)
        joints = np.stack([self.nodes.world(node) for node in fields.wholes("joints")])
        if "inverseBindMatrices" in fields:
            rows = self.accessors.rows(fields.whole("inverseBindMatrices"), fields.where, (16,))
            if len(rows) < len(joints):
                raise ValueError(f"{fields.where} has {len(joints)} joints and {len(rows)} inverseBindMatrices")
            joints = joints @ rows.at(slice(len(joints))).reshape(-1, 4, 4).transpose(0, 2, 1)

        def skinned(numbers: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
            if numbers.size and numbers.max() >= len(joints):
                raise ValueError(f"{fields.where} has {len(joints)} joints; a vertex names joint {numbers.max()}")
            sums = weights.sum(-1)[..., None, None]
            turns = sum(weights[..., k, None, None] * joints[numbers[..., k]] for k in range(weights.shape[-1]))
            return turns / np.where(sums > 0, sums, 1)

        return skinned
