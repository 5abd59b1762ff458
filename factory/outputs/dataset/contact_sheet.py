"""Draw a sheet of pictures of a data set, chosen by chance but the same every time: `Sheet`."""

from __future__ import annotations

import hashlib
import io
import json
from base64 import b64decode, b64encode
from contextlib import suppress

from factory.storage.interface import Store

COLUMNS, ROWS, SIDE = 10, 8, 128
"""Of the sheet; the side of a picture in pixels, without its text."""
STATE, SHEET = "contact_sheet.json", "contact_sheet.jpg"
_TEXT = 14


class Sheet:
    """The pictures with the smallest digests of their assets' ids, of all calls so far.

    Args:
        store: the data set's folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chosen: dict[str, dict[str, str]] = {}
        """By digest: text and thumbnail (base64)."""
        with suppress(KeyError):
            self._chosen = json.loads(store.get(STATE))

    def offer(self, asset_id: str, text: str, picture: bytes) -> None:
        """Take a picture, encoded, if it belongs on the sheet."""
        rank = hashlib.sha256(asset_id.encode()).hexdigest()
        if len(self._chosen) == COLUMNS * ROWS:
            last = max(self._chosen)
            if rank >= last:
                return
            del self._chosen[last]
        self._chosen[rank] = {"text": text, "picture": b64encode(_thumbnail(picture)).decode()}

    def write(self) -> None:
        """Write the sheet, and what the next call goes on from."""
        from PIL import Image, ImageDraw, ImageFont

        count = len(self._chosen)
        sheet = Image.new("RGB", (min(COLUMNS, count) * SIDE, -(-count // COLUMNS) * (SIDE + _TEXT)), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
        for place, rank in enumerate(sorted(self._chosen)):
            left, top = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + _TEXT)
            sheet.paste(Image.open(io.BytesIO(b64decode(self._chosen[rank]["picture"]))), (left, top))
            draw.text((left + 2, top + SIDE), self._chosen[rank]["text"][:22], "black", font)
        stream = io.BytesIO()
        sheet.save(stream, "JPEG", quality=88)
        self._store.put(SHEET, stream.getvalue())
        self._store.put(STATE, json.dumps(self._chosen).encode())


def _thumbnail(picture: bytes) -> bytes:
    """A JPEG of SIDE pixels, over white."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as source:
        image = source.convert("RGBA").resize((SIDE, SIDE))
    over = Image.new("RGBA", image.size, "white")
    over.alpha_composite(image)
    stream = io.BytesIO()
    over.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()
