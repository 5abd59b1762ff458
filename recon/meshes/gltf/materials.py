"""Read the materials of a glTF: `Materials`, colours, textures and transparency as the picture needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.meshes.gltf.document import Document
from recon.meshes.gltf.extensions import WITH_FALLBACK, advice_for, extensions_of
from recon.meshes.gltf.fields import Fields
from recon.meshes.parts import Look
from recon.meshes.textures import CLAMP, MIRROR, REPEAT, Textures

_WRAPS = {10497: REPEAT, 33071: CLAMP, 33648: MIRROR}
_MODES = ("OPAQUE", "MASK", "BLEND")


class TexturePlace(NamedTuple):
    """Where a texture is sampled: a set of the vertices' coordinates, and the map [2,3] that they go through."""

    coordinates: int = 0
    turn: NDArray[np.float64] = np.eye(2, 3)


@dataclass(frozen=True, slots=True)
class Material:
    """A surface: `factor` [4] linear, times vertex colours; `look`, and where its textures are sampled."""

    factor: NDArray[np.float64]
    look: Look
    base: TexturePlace = field(default_factory=TexturePlace)
    emission: TexturePlace = field(default_factory=TexturePlace)
    solid: bool = True
    """Whether alpha means nothing."""


class Materials:
    """The materials of a file, each read once; its images are decoded as they are met."""

    def __init__(self, document: Document, textures: Textures) -> None:
        self.document, self.textures = document, textures
        self.made: dict[int, Material] = {}

    def material(self, index: int | None) -> Material:
        """A material by its number; None: that of primitives without one, white and lit."""
        if index is None:
            return Material(np.ones(4), Look())
        if index not in self.made:
            self.made[index] = self._read(self.document.item("materials", index))
        return self.made[index]

    def _read(self, fields: Fields) -> Material:
        extensions = extensions_of(fields)
        surface, names = fields.child("pbrMetallicRoughness"), ("baseColorFactor", "baseColorTexture")
        extensions_of(surface)
        glossy = "KHR_materials_pbrSpecularGlossiness"
        if glossy in extensions:
            surface, names = extensions[glossy], ("diffuseFactor", "diffuseTexture")
        factor = np.array(surface.numbers(names[0], (1.0, 1.0, 1.0, 1.0)))
        mode = fields.text("alphaMode", "OPAQUE")
        if mode not in _MODES:
            raise ValueError(f"{fields.where}.alphaMode is {mode[:40]!r}. Available: {', '.join(_MODES)}")
        look = Look(lit="KHR_materials_unlit" not in extensions, blended=mode == "BLEND")
        if mode == "MASK":
            look.cutoff = max(fields.number("alphaCutoff", 0.5), 0.0)
        look.texture, base = self._texture(surface, names[1])
        emission = TexturePlace()
        if look.lit:
            strength = extensions.get("KHR_materials_emissive_strength", Fields({}, "")).number("emissiveStrength", 1.0)
            look.emission = np.array(fields.numbers("emissiveFactor", (0.0, 0.0, 0.0))).clip(0) * strength
            if look.emission.any():
                look.emission_texture, emission = self._texture(fields, "emissiveTexture")
        return Material(factor.clip(0), look, base, emission, solid=mode == "OPAQUE")

    def _texture(self, owner: Fields, name: str) -> tuple[int, TexturePlace]:
        """The number of the texture that a material names, or -1, and where it is sampled."""
        if name not in owner:
            return -1, TexturePlace()
        info = owner.child(name)
        transform = extensions_of(info).get("KHR_texture_transform")
        coordinates = info.whole("texCoord", 0)
        fields = self.document.item("textures", info.whole("index"))
        image, wraps = self._image(fields), self._wraps(fields)
        number = self.textures.add(image.where, lambda: self._bytes(image), image.where, wraps)
        if transform is None:
            return number, TexturePlace(coordinates)
        return number, TexturePlace(transform.whole("texCoord", coordinates), _transform(transform))

    def _image(self, fields: Fields) -> Fields:
        """The image of a texture that can be decoded, where there are several."""
        extensions = extensions_of(fields)
        source = fields.optional("source")
        if "EXT_texture_webp" in extensions:
            source = extensions["EXT_texture_webp"].whole("source")
        if source is None:
            for name in extensions.keys() & WITH_FALLBACK:
                raise ValueError(f"{fields.where} is a texture of {name}, which is not read; {advice_for(name)}")
            raise ValueError(f"{fields.where} has no image; export it again with its textures")
        return self.document.item("images", source)

    def _bytes(self, image: Fields) -> bytes:
        extensions_of(image)
        if "bufferView" in image:
            return bytes(self.document.view(image.whole("bufferView"))[0])
        if "uri" in image:
            return self.document.beside.uri(image.text("uri", ""))
        raise ValueError(f"{image.where} has neither an address nor bytes in the file")

    def _wraps(self, texture: Fields) -> tuple[int, int]:
        index = texture.optional("sampler")
        if index is None:
            return REPEAT, REPEAT
        sampler = self.document.item("samplers", index)
        extensions_of(sampler)
        return _wrap(sampler, "wrapS"), _wrap(sampler, "wrapT")


def _wrap(sampler: Fields, name: str) -> int:
    code = sampler.whole(name, 10497)
    if code not in _WRAPS:
        raise ValueError(f"{sampler.where}.{name} is {code}. Available: {', '.join(map(str, _WRAPS))}")
    return _WRAPS[code]


def _transform(fields: Fields) -> NDArray[np.float64]:
    """The map [2,3] of KHR_texture_transform: scaled, then turned, then moved."""
    (x, y), (width, height) = fields.numbers("offset", (0.0, 0.0)), fields.numbers("scale", (1.0, 1.0))
    angle = fields.number("rotation", 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos * width, sin * height, x], [-sin * width, cos * height, y]])
