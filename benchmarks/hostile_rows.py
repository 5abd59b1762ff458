"""Make rows that no one should send, of fuzzed types, sizes, encodings and pictures, from one seed: `values`."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "CANARY-5b1f"
"""Stands in the file that no row may read."""


@dataclass(frozen=True, kw_only=True)
class Traps:
    """What must stay untouched."""

    secret: Path
    """A file beside the table's folder, holds MARK."""
    touched: Path
    """A file that appears when some payload is executed."""
    url: str
    """An address of this machine that counts its visitors."""


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: int | None = None, extra: bytes = b"", colour: int = 2) -> bytes:
    """A PNG of zeros; `rows` of its lines are there. Zeros pack a thousandfold."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    line = 1 + width * {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    packer, parts = zlib.compressobj(9), []
    for _ in range(height if rows is None else rows):
        parts.append(packer.compress(bytes(line)))
    data = b"".join(parts) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (48, 40), **options: Any) -> bytes:
    """A small honest picture."""
    from PIL import Image, ImageDraw

    picture, stream = Image.new(mode, size), io.BytesIO()
    if mode in ("RGB", "RGBA"):
        ImageDraw.Draw(picture).ellipse((8, 8, 36, 32), fill=(200, 30, 30, 255)[: len(mode)])
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pictures(traps: Traps) -> list[bytes]:
    """Encoded pictures, and what calls itself one."""
    bomb = zlib.compress(bytes(100 << 20), 9)
    good = [encoded("PNG"), encoded("PNG", "RGBA"), encoded("JPEG"), encoded("WEBP"), encoded("PNG", "L")]
    other = [encoded("GIF"), encoded("TIFF"), encoded("BMP"), encoded("ICO"), encoded("PPM"), encoded("PDF")]
    script = f"import os; os.system('touch {traps.touched}')"
    entity = f'<!DOCTYPE s [<!ENTITY x SYSTEM "file://{traps.secret}">]>'
    return [
        *good,
        *other,
        encoded("EPS"),
        encoded("JPEG", "CMYK"),
        encoded("PNG", "1", (1, 1)),
        encoded("PNG", "I;16"),
        png(50_000, 50_000, rows=1),
        png(5_700, 5_700),
        png(6_000, 6_000),
        png(60_000, 500),
        png(4_000_000, 8, rows=1),
        png(64, 64, colour=3),
        png(0, 10, rows=1),
        png(2**31 - 1, 2**31 - 1, rows=0),
        png(64, 64, extra=chunk(b"zTXt", b"k\0\0" + bomb)),
        png(64, 64, extra=chunk(b"iCCP", b"k\0\0" + bomb)),
        png(64, 64, extra=chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)),
        f'{entity}<svg xmlns="http://www.w3.org/2000/svg"><image href="{traps.url}/svg"/>&x;</svg>'.encode(),
        f"%!PS\n({traps.touched}) (w) file\n".encode(),
        f"<html><script src='{traps.url}/js'></script>".encode(),
        f"push graphic-context\nimage over 0,0 0,0 'url({traps.url}/mvg)'\n".encode(),
        pickle.dumps(_Payload(traps.touched)),
        f"#!/bin/sh\ntouch {traps.touched}\n".encode(),
        script.encode(),
        b"",
        b"\0" * 64,
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"\xff\xd8\xff\xe0" + b"\xff" * 4096,
        b"PK\x03\x04" + bytes(100),
    ]


def broken(picture: bytes, chance: random.Random) -> bytes:
    """The picture cut short, or with bytes overwritten, or as it is."""
    kind = chance.randrange(3)
    if kind == 0 or not picture:
        return picture[: chance.randrange(len(picture) + 1)]
    damaged = bytearray(picture)
    for _ in range(chance.choice([1, 4, 64]) if kind == 1 else 0):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def values(traps: Traps) -> list[Any]:
    """Values for any column of a text table."""
    folder = str(traps.secret.parent)
    return [
        None, True, False, 0, -1, 1.5, 2**63, 10**400, 1e308, "", " ", "a red car", "x" * 5000, "x" * 100_000,
        [], {}, [[]], {"bytes": None}, {"bytes": "QUJD", "path": "../x"}, ["a", 1], {"a": {"b": [None] * 50}},
        "../" * 20 + "etc/passwd", f"../{traps.secret.name}", str(traps.secret), f"file://{traps.secret}",
        f"{traps.url}/fetch", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://10.0.0.1/x.png",
        "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "data:image/png;base64,AAAA", "s3://bucket/key.png", "\\\\host\\x",
        "/dev/zero", "/dev/stdin", "/proc/self/environ", "nul\0byte", "CON", "aux.png", ".", "..", "~", "-rf",
        f"$(touch {traps.touched})", f"`touch {traps.touched}`", f"; touch {traps.touched}", f"|touch {traps.touched}",
        f"{{{{ ''.__class__.__mro__ }}}} {{0.__class__}} %s%n {folder}",
        f"!!python/object/apply:os.system ['touch {traps.touched}']",
        f"__import__('os').system('touch {traps.touched}')",
        "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0",
        "'; DROP TABLE assets;--",
        "\u202egnp.exe", "\ufeffbom", "\ud800", "a\u0300" * 500, "🙂" * 1200, "\x1b[2J\x1b]0;owned\x07",
        "\r\n\r\nGET /",
        "NaN", "1e999", "１２３", "0x10", "9" * 5000,
    ]  # fmt: skip


def jsonl(count: int, chance: random.Random, traps: Traps) -> bytes:
    """`count` lines, none of them blank."""
    pool = values(traps)
    broken_lines = [
        b"{", b"null", b"[1]", b'"text"', b"[" * 5000, b'{"prompt":' * 2000, b"\xff\xfe\x00", b"\x80abc", b"nan",
        b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "\\ud800"}', b'{"seed": ' + b"9" * 9000 + b"}", b"\0",
        b'{"prompt": "' + b"y" * 5_000_000 + b'"}',
    ]  # fmt: skip
    lines = []
    for number in range(count):
        if number % 500 == 7:
            lines.append(broken_lines[-1])
        elif chance.random() < 0.15:
            lines.append(chance.choice(broken_lines[:-1]))
        else:
            lines.append(json.dumps(_row(number, chance, pool)).encode("utf-8", "surrogatepass"))
    return b"\n".join(lines) + b"\n"


def _row(number: int, chance: random.Random, pool: list[Any]) -> dict[str, Any]:
    row = {"prompt_id": f"row-{number}", "prompt": f"a red car {number}", "seed": number}
    for name in ("prompt_id", "prompt", "seed", "image", "id", chance.choice(["__class__", "error_stage", "host", ""])):
        if chance.random() < 0.35:
            row[name] = chance.choice(pool)
    return row


def as_csv(count: int, chance: random.Random, traps: Traps) -> bytes:
    """`count` rows under a header; cells as another program would write them, some with too many."""
    texts = [str(value) for value in values(traps) if not isinstance(value, int) or abs(value) < 10**300]
    texts = [text.encode("utf-8", "replace").decode().replace("\0", "") for text in texts]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["prompt_id", "prompt", "seed", "image"])
    for number in range(count):
        row = [f"csv-{number}", f"a blue lamp {number}", str(number), ""]
        for place in range(4):
            if chance.random() < 0.3:
                row[place] = chance.choice(texts)
        writer.writerow(row + (["one more"] if chance.random() < 0.05 else []))
    return stream.getvalue().encode()


def parquet(count: int, chance: random.Random, traps: Traps) -> bytes:
    """`count` rows with pictures as bytes, and strings that are not UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = pictures(traps)
    texts = [b"a green tree", b"", b"\xff\xfe", b"x" * 5000, "🙂".encode(), f"../{traps.secret.name}".encode()]
    huge = bytes(33 << 20)
    images = [huge if n % 700 == 3 else broken(chance.choice(kinds), chance) for n in range(count)]
    paths = [chance.choice([None, str(traps.secret), f"{traps.url}/p", "../x"]) for _ in range(count)]
    struct_type = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    prompts = pa.array([chance.choice(texts) for _ in range(count)], pa.binary()).view(pa.string())
    table = pa.table(
        {
            "prompt_id": [
                f"pq-{n}" if chance.random() < 0.9 else chance.choice(["../x", "", None]) for n in range(count)
            ],
            "prompt": prompts,
            "seed": pa.array([chance.choice([1.0, -1.0, float("nan"), float("inf"), None]) for _ in range(count)]),
            "image": pa.array([{"bytes": i, "path": p} for i, p in zip(images, paths)], struct_type),
            "payload": [pickle.dumps(_Payload(traps.touched))] * count,
        }
    )
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=256, compression="zstd")
    return stream.getvalue()
