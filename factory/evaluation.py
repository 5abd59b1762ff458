"""The third line: finished assets in, scores out, beside the assets.

assets ── Evaluate ──▶ evaluations/<protocol>-<prompts>/scores/part-*.parquet, or a row in dead_letters/ there
          read the video, render the model, CLIP
"""

from __future__ import annotations

import io
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from eval.similarity import VIEW_SETS, Protocol, columns, score_views
from factory.config import LineConfig, Pool
from factory.ledger import ASSETS, DEAD, Ledger, commit
from factory.pipeline import Step
from factory.schema import OUTCOME, STAGES
from factory.stage import Row, Stage, fail
from factory.store import Store, open_store

MODELS = (".ply", ".glb", ".gltf", ".obj")
VIDEOS = (".mp4", ".webm", ".mov")
SCORE_LINE = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        *[(name, pa.string()) for name in ("frames_path", "model_path", "image_path")],
        ("image", pa.large_binary()),  # encoded, where no file holds it
        ("elevation", pa.float64()),
        ("attempt", pa.int32()),
    ]
)
SCORE_DEAD_LETTERS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        *[(name, pa.string()) for name in ("error_stage", "error_type", "error_message")],
        ("attempt", pa.int32()),
        *[(name, pa.string()) for name in ("host", "run_id")],
    ]
)


def scores_schema(models: Sequence[str]) -> pa.Schema:
    """The table of scores: each column of a score ends in the name of the model that judged."""
    fields: list[Any] = [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        ("elevation", pa.float64()),
    ]
    for model in models:
        for column in columns(model):
            fields += [(column, pa.float64()), (f"{column}_views", pa.list_(pa.float64()))]
        fields += [(f"rank_text_{views}_{model}", pa.int64()) for views in VIEW_SETS]
    return pa.schema([*fields, ("attempt", pa.int32()), ("host", pa.string()), ("run_id", pa.string())])


def assets_of_run(ledger: Ledger) -> tuple[list[Row], list[Row]]:
    """What an output folder of `im3d generate` holds: assets to score, and its own dead letters."""
    wanted = ["prompt_id", "prompt", "elevation", "ply.path", "generated.path", "image.path"]
    rows = [
        {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "frames_path": row["generated"]["path"],
            "model_path": row["ply"]["path"],
            "image_path": row["image"]["path"],
            "elevation": row["elevation"],
        }
        for row in ledger.rows(ASSETS, wanted)
    ]
    return rows, list(ledger.rows(DEAD, ["prompt_id", "error_stage", "error_type", "error_message"]))


def costs_of_run(ledger: Ledger) -> dict[str, float]:
    """Means over the run's assets: `minutes`, and the video model's `steps` and `forwards` (guidance doubles these)."""
    seconds = [f"seconds_{stage}" for stage in STAGES[:-1]]
    counts = {kind: [f"{kind}_{part}" for part in ("video", "refine")] for kind in ("steps", "forwards")}
    rows = list(ledger.rows(ASSETS, [*seconds, *counts["steps"], *counts["forwards"]]))
    sums = {"minutes": [sum(row[name] or 0 for name in seconds) / 60 for row in rows]}
    sums |= {kind: [sum(row[name] or 0 for name in names) for row in rows] for kind, names in counts.items()}
    return {name: float(np.mean(values)) for name, values in sums.items()}


def assets_of_folder(store: Store, root: str, prompts: str) -> list[Row]:
    """Videos and models named after the ids of a prompt table: `<prompt_id>.mp4`, `.ply`, `.glb`, ...

    A prompt without files and a file without prompt are rows too, without the other, so that they are counted.

    Raises:
        ValueError: when the prompt table cannot be read.
    """
    from factory.prompts import read_prompts

    table = read_prompts(prompts)
    rows: dict[str, Row] = {
        prompt.prompt_id: {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "image": prompt.image}
        for prompt in table.prompts
    }
    rows |= {row.prompt_id: {"prompt_id": row.prompt_id, "prompt": row.prompt} for row in table.rejected}
    for name in store_files(root):
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        kind = "model_path" if suffix in MODELS else "frames_path" if suffix in VIDEOS else None
        if kind:
            rows.setdefault(path.stem, {"prompt_id": path.stem, "prompt": None})[kind] = name
    return list(rows.values())


def store_files(root: str) -> list[str]:
    """The names of the files that lie directly in a folder, local or s3://, sorted."""
    import pyarrow.fs

    from factory.store import pyarrow_filesystem

    filesystem, path = pyarrow_filesystem(root)
    try:
        entries = filesystem.get_file_info(pyarrow.fs.FileSelector(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{root} is no folder; give the output of im3d generate or a folder of assets") from error
    return sorted(entry.base_name for entry in entries if entry.type == pyarrow.fs.FileType.File)


@dataclass(kw_only=True, slots=True)
class ScoreWork:
    """Assets as `pipeline.Work`."""

    assets: Sequence[Row]

    @property
    def ids(self) -> Sequence[str]:
        return [asset["prompt_id"] for asset in self.assets]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return pa.Table.from_pylist([self.assets[row] | {"attempt": attempt} for row in rows], schema=SCORE_LINE)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return _dead(self.assets[row] | error), SCORE_DEAD_LETTERS


def step(pool: Pool, **arguments: Any) -> Step:
    """The line's one stage; `arguments` are those of `Evaluate` beside threads and board."""
    return Step(actor=Evaluate, pool=pool, arguments=arguments)


def line_config(pool: Pool, address: str) -> LineConfig:
    """How the line runs: one block a batch."""
    return LineConfig(address=address, rows_per_block=pool.batch, max_failed_share=1.0)


class Evaluate(Stage):
    """Videos and models to CLIP scores, committed as a row of scores or as a dead letter.

    Args:
        config: the protocol.
        clip: models as `Scorer.load` takes them. pool: by model name, unit text embeddings by prompt.
        root: folder with the assets. out: folder of this evaluation. run_id: which run this is.
    """

    name = "evaluate"

    def __init__(
        self,
        config: Protocol,
        clip: Sequence[Any],
        prompts: dict[str, dict[str, np.ndarray]],
        root: str,
        out: str,
        run_id: str,
        threads: int = 1,
        board: Any = None,
    ) -> None:
        self.clip, self.prompts, self.run_id = clip, prompts, run_id
        self.assets, self.store = open_store(root), open_store(out)
        super().__init__(config, threads, board)

    def load(self) -> None:
        from eval.clip import Scorer

        self.scorers = [Scorer.load(model) for model in self.clip]
        self.schema = scores_schema([scorer.name for scorer in self.scorers])

    def __call__(self, table: pa.Table) -> pa.Table:
        outcomes = []
        for row in table.to_pylist():
            self._tell("start", [row | {"error_stage": None}], 0.0)
            row |= {"host": socket.gethostname(), "run_id": self.run_id, "error_stage": None}
            outcomes.append({"prompt_id": row["prompt_id"], "status": self._finish(row)})
            self._tell("end", [row], 0.0)
        return pa.Table.from_pylist(outcomes, schema=OUTCOME)

    def _finish(self, row: Row) -> str:
        try:
            finished = row | self.score(row)
        except Exception as error:
            fail(row, self.name, error)
            commit(self.store, _dead(row), SCORE_DEAD_LETTERS)
            return "failed"
        commit(self.store, {name: finished.get(name) for name in self.schema.names}, self.schema)
        return "done"

    def score(self, row: Row) -> Row:
        """Every score of one asset; ValueError for an asset that cannot be judged by this protocol."""
        if not row["prompt"]:
            raise ValueError(f"asset {row['prompt_id']!r} has no prompt; add it to the table of prompts")
        sets = {name: views for name, views in (("frames", self.frames(row)), ("renders", self.renders(row)))
                if views is not None}  # fmt: skip
        if not sets:
            raise ValueError(f"prompt {row['prompt_id']!r} has neither video nor model; see its name in the folder")
        image = self.reference(row)
        found: Row = {}
        for scorer in self.scorers:
            for what, views in sets.items():
                found |= score_views(scorer, what, views, row["prompt"], image, self.prompts[scorer.name])
        return found

    def frames(self, row: Row) -> np.ndarray | None:
        """The synthesised views uint8 [V,S,S,3]; ValueError when the video is of another length or size."""
        from recon.video_io import decode_mp4

        if not row["frames_path"]:
            return None
        frames, config = decode_mp4(self.read(row["frames_path"])), self.config
        if len(frames) != config.num_views or frames.shape[1:3] != (config.size, config.size):
            raise ValueError(
                f"{row['frames_path']} has {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}; the protocol "
                f"says {config.num_views} of {config.size}x{config.size}: see --num-views and --size"
            )
        return frames

    def renders(self, row: Row) -> np.ndarray | None:
        """Views of the model uint8 [V,S,S,3], rendered here and kept nowhere."""
        if not row["model_path"]:
            return None
        data, suffix = self.read(row["model_path"]), PurePosixPath(row["model_path"]).suffix.lower()
        elevation = self.config.elevation if row["elevation"] is None else row["elevation"]
        return (render_splats if suffix == ".ply" else render_mesh)(data, suffix, elevation, self.config)

    def reference(self, row: Row) -> np.ndarray | None:
        """The image prompt uint8 [H,W,3] over the protocol's background, or None."""
        from PIL import Image

        data = self.read(row["image_path"]) if row["image_path"] else row["image"]
        if not data:
            return None
        return over(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")), self.config.background)

    def read(self, path: str) -> bytes:
        """The bytes of a file of the assets; ValueError when it is not there."""
        try:
            return self.assets.get(path)
        except KeyError as error:
            raise ValueError(f"{path} is missing from {self.assets.root}") from error


def render_splats(data: bytes, suffix: str, elevation: float, config: Protocol) -> np.ndarray:
    """One turn around the Gaussians of a PLY, uint8 [V,S,S,3]."""
    import torch

    from recon.cameras import turntable
    from recon.config import OrbitConfig
    from recon.gaussians import render
    from recon.ply import read_ply

    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        gaussians = read_ply(file.name)
    orbit = OrbitConfig(num_views=config.num_views, fov_degrees=config.fov_degrees, distance=config.distance)
    with torch.inference_mode():
        rgb, _ = render(gaussians, turntable(elevation, config.size, orbit), config.background)
    return (rgb.clamp(0, 1) * 255).round().byte().cpu().numpy()


def render_mesh(data: bytes, suffix: str, elevation: float, config: Protocol) -> np.ndarray:
    """One turn around a mesh in its unit sphere, uint8 [V,S,S,3]; ValueError for other cameras than the line's own."""
    from factory.meshes import load_mesh, render_turntable
    from recon.config import OrbitConfig

    own = OrbitConfig()
    if (config.fov_degrees, config.distance) != (own.fov_degrees, own.distance):
        raise ValueError(
            f"meshes are rendered at {own.fov_degrees} degrees from {own.distance}; leave these as they are"
        )
    mesh = load_mesh(data, suffix.lstrip("."))
    views = render_turntable(mesh, elevation, config.size, config.num_views)
    bare = 1 - views[..., 3:].astype(np.float32) / 255  # the renderer's colours lie over white
    return (views[..., :3] - 255 * (1 - config.background) * bare).clip(0, 255).round().astype(np.uint8)


def over(pixels: np.ndarray, background: float) -> np.ndarray:
    """Straight-alpha uint8 [...,4] over a grey in [0, 1], uint8 [...,3]."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return (pixels[..., :3] * alpha + 255 * background * (1 - alpha)).round().astype(np.uint8)


def _dead(row: Row) -> Row:
    return {name: row.get(name) for name in SCORE_DEAD_LETTERS.names}
