"""Run small files of all kinds through the commands and check each answer: `python -m benchmarks.cases FOLDER`.

The folder holds `mesh/`, `images/`, `tables/` and `ply/` with files as the tables below name them, or some of these.
A line a case: what it gives, what is wanted. Exit code 1 when a case gives something else.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_DIFFERENCE = 1.5
"""Mean absolute difference of 255 of pictures that are alike."""
MAX_SCORE_DIFFERENCE, MAX_IMAGE_DIFFERENCE = 0.01, 1.0
"""Of 100: CLIP scores of assets that are alike, and against pictures that are alike but for JPEG."""
IMAGES = {
    "exif-2.jpg": "ref.png", "exif-6.jpg": "ref.png", "opaque-rgba.png": "ref.png", "grey16.png": "grey8.png",
    "all-black.png": "one colour all over", "6000x6000.png": "36000000|6000x6000",
}  # fmt: skip
TABLES = {
    "float-ids.parquet": "0: (?=.*[0-9a-f]{32})(?=.*1 2 4|.*1 2.* 4)",
    "binary-id.parquet": "1: abc | .*InvalidUtf8",
    "timestamp-id.parquet": "1: | .*prompt_id datetime.* is not allowed",
    "prompts.csv.gz": "0: 1",
    "prompts.jsonl.gz": "0: 1",
    "shards": "0: "
    + " ".join(f"{year}-{part}-{row}" for year in (2025, 2026) for part in range(3) for row in range(4)),
    "CR-only.csv": "0: 1 2$",
    "quote-in-header.csv": "2: | error: [^\n]*never closed",
    "gz-as.csv": "2: | error: [^\n]*gzip",
}
PLY = {
    **dict.fromkeys(("p-apple-sharp", "p-crlf", "p-extra-uchar", "p-ascii", "p-big-endian"), "ref"),
    "p-inf-opacity-flat-scale": "scored", "p-zero-quaternions": "scored",
    "p-2dgs-no-scale_2": "2D Gaussian", "p-point-cloud": "point cloud",
    "p-supersplat-compressed-header": "splat-transform", "n0": "no Gaussians", "invisible": "nothing of the asset",
}  # fmt: skip
REF, TWO, TINT = "ref.glb", "TWO-ref.glb", "c4-TINT-float-no-material.glb"
MESHES = {
    r"c1-|c2b-|c9|c10-|c4-white|x-unlit|c11-": REF, r"c4-TINT": TINT, "c6-TWO-inst": "c6-TWO-ref.glb",
    "TWO-quant": TWO, r"quad\.obj": "ref-lit.glb", r"o-kd\.obj": "scored", r"plain\.gltf|percent\.gltf": REF,
    r"REFUSE-(draco|meshopt|ktx2)": r"draco|meshopt|KTX2|basisu|ref\.glb", "REFUSE-unknown": "extension",
    r"g-coordinates-1e-30": f"{REF}|tiny|nothing", "g-": "coordinate|index|vertex|finite|nan|NaN",
}  # fmt: skip
CHEAP = ["--line.runner", "inprocess", "--image.steps", "1", "--video.steps", "1", "--fit.iterations", "2",
         "--refine.rounds-at", "1", "--fit.init", "ball", "--views.elevation", "0.3",
         "--files.turntable-frames", "16"]  # fmt: skip
Outcome = tuple[str, str, bool]
"""What a case gave, what is wanted, whether they agree."""


@dataclass(kw_only=True, slots=True)
class Told:
    """A command that ran in this process."""

    code: int
    out: str


def command(*words: str) -> Told:
    """Run `im3d WORDS` in this process; a traceback is what it says too."""
    stream = io.StringIO()
    job = importlib.import_module(f"jobs.{words[0]}")
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code = job.main(list(words[1:]))
    return Told(code=code, out=stream.getvalue())


def main(argv: list[str] | None = None) -> int:
    """Print a line a case; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    kinds = {"mesh": meshes, "images": images, "tables": tables, "ply": gaussians}
    parser.add_argument("--only", choices=[*kinds], action="append", help="kinds to run; all by default")
    options = parser.parse_args(argv)
    wrong = count = 0
    for kind in options.only or kinds:
        if not (options.folder / kind).is_dir():
            continue
        with tempfile.TemporaryDirectory() as folder:
            for name, (given, wanted, holds) in kinds[kind](options.folder / kind, Path(folder)):
                count, wrong = count + 1, wrong + (not holds)
                print(f"{'ok ' if holds else 'BAD'} {kind}/{name}: {given[:150]!r}, wanted {wanted!r}", flush=True)
    print(json.dumps({"cases": count, "wrong": wrong}))
    return 1 if wrong else 0


def tables(cases: Path, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Tables through `im3d prompts`: exit code, ids, and what it says."""
    for name, wanted in TABLES.items():
        kept = folder / "kept.jsonl"
        kept.unlink(missing_ok=True)
        output = command("prompts", "--prompts", str(cases / name), "--out", str(kept))
        ids = [json.loads(line)["prompt_id"] for line in kept.read_text().splitlines()] if kept.exists() else []
        ids = sorted({*ids, *re.findall(r"^(\S+): \w[\w ]* \(", output.out, re.MULTILINE)})  # those with remarks too
        # remarks on good prompts are none of this: unusable rows alone make code 1
        code = output.code if output.code == 2 else int("0 rows unusable" not in output.out)
        given, said = f"{code}: {' '.join(ids)}", output.out
        start, _, sentence = wanted.partition("| ")
        holds = bool(re.match(start.strip(), given)) and bool(re.search(sentence, said))
        yield name, (f"{given} | {said.splitlines()[0] if code else ''}", wanted, holds and "Traceback" not in said)


def images(cases: Path, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Pictures through `im3d generate`, and as image prompts through `im3d evaluate`."""
    from PIL import Image

    names = sorted(IMAGES | dict.fromkeys(IMAGES.values()))
    names = [name for name in names if (cases / name).is_file()]
    rows = [{"prompt_id": name, "prompt": "a toy", "image": name, "seed": 1} for name in names]
    table = _jsonl(folder / "p.jsonl", rows)
    command("generate", "--prompts", table, "--image-root", str(cases), "--out", str(folder / "out"), *CHEAP)
    made, dead = _rows(folder / "out/assets"), _rows(folder / "out/dead_letters")
    pixels = {name: np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for name, row in made.items()}
    (folder / "models").mkdir()
    model = _any_ply()
    for name in names:
        (folder / f"models/{name}.ply").write_bytes(model)
    yield from ((f"generate {name}", found) for name, found in _compared(IMAGES, pixels, dead, MAX_DIFFERENCE))
    scores, letters = _evaluated(folder / "models", table, "clip_image_renders", "--image-root", str(cases))
    yield from ((f"evaluate {name}", found) for name, found in _compared(IMAGES, scores, letters, MAX_IMAGE_DIFFERENCE))


def gaussians(cases: Path, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """PLY files through `im3d evaluate`."""
    rows = [{"prompt_id": path.stem, "prompt": "a toy"} for path in sorted(cases.glob("*.ply"))]
    scores, letters = _evaluated(cases, _jsonl(folder / "p.jsonl", rows), "clip_text_renders", "--out", str(folder))
    yield from _compared(PLY, scores, letters, MAX_SCORE_DIFFERENCE)


def meshes(cases: Path, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """Meshes through `im3d render`."""
    from PIL import Image

    files = [path for path in sorted(cases.rglob("*")) if path.suffix in (".glb", ".gltf", ".obj")]
    rows = [{"id": path.name, "path": str(path.relative_to(cases)), "caption": "a"} for path in files]
    flags = ["--max-elevation-degrees", "0", "--size", "64", "--asset-root", str(cases), "--runner", "inprocess"]
    command("render", "--assets", _jsonl(folder / "a.jsonl", rows), "--out", str(folder / "out"), *flags)
    made, dead = _rows(folder / "out/renders"), _rows(folder / "out/dead_letters")
    views = {
        row["asset_id"]: np.stack([np.asarray(Image.open(io.BytesIO(view["bytes"]))) for view in row["frames"]])
        for row in made.values()
    }
    letters = {row["asset_id"]: row for row in dead.values()}
    kinds = {path.name: [want for kind, want in MESHES.items() if re.search(kind, path.name)] for path in files}
    wanted = {name: found[0] for name, found in kinds.items() if found}
    yield from _compared(wanted, views, letters, MAX_DIFFERENCE)


def _compared(
    wanted: dict[str, str], made: dict[str, Any], dead: dict[str, Any], limit: float
) -> Iterator[tuple[str, Outcome]]:
    """Each case: like another one, "scored", or a dead letter that says so; alternatives apart by |."""
    for name, want in wanted.items():
        like = next((other for other in want.split("|") if other in made), None)
        if name in dead:
            said = dead[name]["error_message"]
            yield name, (said, want, bool(re.search(want, said)) and ("|" in want or like is None))
        elif name not in made:
            yield name, ("nothing", want, False)
        elif like is None:
            yield (
                name,
                (f"scored {np.mean(made[name]):.4g}", want, "scored" in want and bool(np.isfinite(made[name]).all())),
            )
        else:
            same = np.shape(made[name]) == np.shape(made[like])
            difference = float(np.abs(np.asarray(made[name], float) - made[like]).mean()) if same else np.inf
            yield name, (f"differs by {difference:.4g}", want, difference <= limit)


def _evaluated(run: Path, table: str, column: str, *flags: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores and dead letters of `im3d evaluate`, by id."""
    out = run if "--out" not in flags else Path(flags[flags.index("--out") + 1])
    output = command("evaluate", "--run", str(run), "--prompts", table, "--runner", "inprocess", "--size", "64", *flags)
    found = sorted(out.glob("evaluations/*/protocol.json"))
    if not found:
        raise RuntimeError(output.out)
    rows = _rows(found[0].parent / "scores")
    scores = {key: next(value for name, value in row.items() if name.startswith(column) and not name.endswith("_views"))
              for key, row in rows.items()}  # fmt: skip
    return scores, _rows(found[0].parent / "dead_letters")


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet as pq

    rows = [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    return {next(iter(row.values())): row for row in rows}


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _any_ply() -> bytes:
    from recon.gaussians import init_ball
    from recon.ply import write_ply

    with tempfile.NamedTemporaryFile(suffix=".ply") as file:
        write_ply(file.name, init_ball(50))
        return Path(file.name).read_bytes()


if __name__ == "__main__":
    sys.exit(main())
