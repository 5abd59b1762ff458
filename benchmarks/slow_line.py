"""Run a line of one slow stage over N prompts, to be killed: `python -m benchmarks.slow_line OUT N [ADDRESS]`."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from factory.config.settings import FactoryConfig
from factory.ledger.lease import Lease
from factory.ledger.ledger import Ledger
from factory.ledger.schemas import pack
from factory.line.placement import Pool
from factory.line.run import run_line
from factory.line.settings import LineConfig
from factory.line.stage import Row, Stage
from factory.line.step import Step
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.columns import IMAGE
from factory.stages.commit import Commit
from factory.storage.store import Store, open_store
from jobs.errors import guarded


def picture(seed: int) -> bytes:
    """What the stage makes of a prompt."""
    return pack(np.full((4, 4, 3), seed % 256, np.uint8))


def whole(store: Store, row: dict[str, Any]) -> bool:
    """Whether both files of an asset row are there, with what belongs into them."""
    names = (f"files/{row['prompt_id']}/{name}" for name in ("first", "second"))
    try:
        return all(store.get(name) == picture(row["seed"]) for name in names)
    except KeyError:
        return False


class Think(Stage):
    """Takes its time over an image."""

    name, writes = "image", (IMAGE,)

    def process(self, rows: list[Row]) -> None:
        time.sleep(0.3)
        for row in rows:
            row["image"] = picture(row["seed"])


class Keep(Commit):
    """Writes two files, slowly, before the commit."""

    def write(self, row: Row):
        self.store.put(f"files/{row['prompt_id']}/first", row["image"])
        time.sleep(0.1)
        self.store.put(f"files/{row['prompt_id']}/second", row["image"])
        schema = assets_schema(written_columns())
        return {name: row.get(name) for name in schema.names} | {"image": None}, schema


def main(out: str, count: int, address: str = "local") -> int:
    """Make `count` pictures in `out`, and print how many were made; returns the exit code."""
    config = FactoryConfig(line=LineConfig(address=address))
    chain = [
        Step(actor=Think, pool=Pool(actors=2, cpus=0.1), arguments={"config": config}),
        Step(actor=Keep, pool=Pool(cpus=0.1), arguments={"config": config, "out": out, "run_id": "r"}),
    ]
    store = open_store(out)
    with Lease(store):
        store.sweep()
        prompts = [Prompt(prompt_id=f"p{n}", prompt="x", seed=n) for n in range(count)]
        tally = run_line(PromptWork(prompts=prompts, config=config), chain, config.line, Ledger(store))
    print("made", tally.done)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
