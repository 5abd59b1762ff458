"""List assets by variants as the rows of an ablation: `FitWork`, and `fits_schema` of their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from factory.ledger.schemas import ERROR, IMAGE, chosen
from factory.line.stage import Row

FITS, STAGE = "fits", "fit"
FIT_LINE = pa.schema(
    [
        pa.field("fit_id", pa.string(), False),
        *[(name, pa.string()) for name in ("asset_id", "variant", "path", "caption", "error")],
        ("attempt", pa.int32()),
    ]
)
FIT_DEAD_LETTERS = pa.schema(
    [
        *FIT_LINE,
        *ERROR,
        *[(name, pa.string()) for name in ("host", "run_id")],
    ]
)


def fits_schema(judge: str) -> pa.Schema:
    """The table of fits; scores of CLIP end in the name of the model that judged."""
    numbers = [
        "psnr",
        "iou",
        "lpips",
        f"clip_text_{judge}",
        f"clip_image_{judge}",
        "seconds",
        "cpu_seconds",
        "elevation",
    ]
    return pa.schema(
        [
            *[field for field in FIT_LINE if field.name != "error"],
            *[(name, pa.float64()) for name in [*numbers, "elevation_given"]],
            *[(name, pa.int64()) for name in ("peak_bytes", "num_gaussians", "forwards")],
            ("picture", IMAGE),  # true views above those of the fit
            *[(name, pa.string()) for name in ("host", "run_id")],
        ]
    )


@dataclass(kw_only=True, slots=True)
class FitWork:
    """Assets by variants as `work.Work`, an asset's variants one after the other."""

    assets: Sequence[Row]
    variants: Sequence[str]

    @property
    def ids(self) -> Sequence[str]:
        return [f"{asset['asset_id']}.{variant}" for asset in self.assets for variant in self.variants]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return pa.Table.from_pylist([self._row(row, attempt) for row in rows], schema=FIT_LINE)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return chosen(self._row(row, error["attempt"]) | error, FIT_DEAD_LETTERS), FIT_DEAD_LETTERS

    def _row(self, row: int, attempt: int) -> Row:
        asset, variant = self.assets[row // len(self.variants)], self.variants[row % len(self.variants)]
        known = {"fit_id": f"{asset['asset_id']}.{variant}", "variant": variant, "attempt": attempt}
        return known | {name: asset[name] for name in ("asset_id", "path", "caption", "error")}
