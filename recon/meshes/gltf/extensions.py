"""Say which extensions of glTF are read, which change nothing in our pictures, and refuse the rest: `extensions_of`."""

from __future__ import annotations

from recon.meshes.gltf.fields import Fields

READ = frozenset({
    "EXT_mesh_gpu_instancing",
    "EXT_meshopt_compression",
    "EXT_texture_webp",
    "KHR_draco_mesh_compression",
    "KHR_materials_emissive_strength",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit",
    "KHR_mesh_quantization",
    "KHR_meshopt_compression",
    "KHR_node_visibility",
    "KHR_texture_transform",
})  # fmt: skip

UNSEEN = frozenset({
    # Reflections, refractions and fine layers: the picture shows the base colour under soft fixed lights.
    "KHR_materials_anisotropy",
    "KHR_materials_clearcoat",
    "KHR_materials_diffuse_transmission",
    "KHR_materials_dispersion",
    "KHR_materials_ior",
    "KHR_materials_iridescence",
    "KHR_materials_sheen",
    "KHR_materials_specular",
    "KHR_materials_transmission",
    "KHR_materials_volume",
    "KHR_materials_volume_scatter",
    # Lights and cameras of the file's own are not used.
    "EXT_lights_ies",
    "EXT_lights_image_based",
    "KHR_lights_punctual",
    # Choices and behaviour besides the default look; descriptions.
    "EXT_mesh_features",
    "EXT_structural_metadata",
    "KHR_animation_pointer",
    "KHR_audio_emitter",
    "KHR_implicit_shapes",
    "KHR_interactivity",
    "KHR_materials_variants",
    "KHR_node_hoverability",
    "KHR_node_selectability",
    "KHR_physics_rigid_bodies",
    "KHR_xmp",
    "KHR_xmp_json_ld",
    "MSFT_lod",
    "MSFT_packing_normalRoughnessMetallic",
    "MSFT_packing_occlusionRoughnessMetallic",
    "VRM",
    "VRMC_node_constraint",
    "VRMC_springBone",
    "VRMC_vrm",
})  # fmt: skip

WITH_FALLBACK = frozenset({
    "EXT_texture_avif",
    "KHR_texture_basisu",
    "MSFT_texture_dds",
})  # fmt: skip
"""Textures that are not read; where one is not required it names a plain one too, and that is read."""

_COMMANDS = {
    "EXT_meshopt_compression": "gltf-transform cp IN.glb OUT.glb",
    "EXT_texture_avif": "gltf-transform png IN.glb OUT.glb",
    "KHR_draco_mesh_compression": "gltf-transform cp IN.glb OUT.glb",
    "KHR_meshopt_compression": "gltf-transform cp IN.glb OUT.glb",
    "KHR_texture_basisu": "gltf-transform ktxdecompress IN.glb OUT.glb",
}


def check_required(root: Fields) -> None:
    """Refuse a file that cannot be understood without an extension that is not read.

    Raises:
        ValueError: which names the first such extension.
    """
    for name in root.items("extensionsRequired"):
        if not isinstance(name, str) or name not in READ | UNSEEN:
            raise ValueError(
                f"the file needs the extension {str(name)[:80]}, which is not read; {advice_for(str(name))}"
            )


def extensions_of(fields: Fields) -> dict[str, Fields]:
    """The extensions of an object that is drawn, by name.

    Raises:
        ValueError: for one that nothing is known of: it may change the picture.
    """
    extensions = fields.child("extensions")
    for name in extensions.values:
        if name not in READ | UNSEEN | WITH_FALLBACK:
            raise ValueError(f"{fields.where} uses the extension {name[:80]}, which is not read and may change the "
                             f"picture; {advice_for(name)}")  # fmt: skip
    return {name: extensions.child(name) for name in extensions.values}


def advice_for(name: str) -> str:
    """What a user does about a file with an extension that is not read."""
    command = _COMMANDS.get(name)
    return f"convert it with `{command}`" if command else "export it again as plain glTF 2.0"
