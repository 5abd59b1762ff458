"""Write the card of a data set from its index and the facts of its runs: `card_text`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa

from eval.score_columns import is_measure
from factory.ledger.asset_models import licenses_of
from factory.outputs.dataset.index import DATA, kept_of
from factory.outputs.dataset.licenses import TERMS, allowed_together
from factory.outputs.dataset.settings import SPLITS, DatasetConfig
from factory.outputs.dataset.shards import SUFFIX

Facts = Mapping[str, Mapping[str, Any]]
"""By run: of `collect.facts_of`, and how many assets were chosen."""
BINS = 10
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_BARS = " ▁▂▃▄▅▆▇█"


def card_text(decisions: pa.Table, runs: Facts, config: DatasetConfig, clip: str) -> str:
    """README.md of a data set, with the YAML that the Hugging Face hub reads.

    Args:
        decisions: of `Index.table`; at least one is kept.
        runs: whose assets they are.
        clip: name of the model whose embeddings found near-duplicates.
    """
    kept = kept_of(decisions)
    models = [json.loads(text) for text in kept["models"].to_pylist()]
    licenses = sorted({name for each in models for name in licenses_of(each.values()) or ["unknown"]})
    parts = [
        _front(kept, config, licenses),
        "# 3D assets made from prompts\n\n" + _what(config),
        "## Counts\n\n" + _counts(decisions, kept),
        "## Where they come from\n\n" + _runs(runs, decisions),
        "## Near-duplicates and splits\n\n" + _rules(config, clip),
        "## Scores\n\n" + _scores(kept),
        "## Models\n\n" + _models(models),
        "## Licences\n\n" + _licenses(kept, licenses),
        "![Some of the assets](contact_sheet.jpg)\n",
    ]
    return "\n".join(parts)


def _front(kept: pa.Table, config: DatasetConfig, licenses: Sequence[str]) -> str:
    present = set(kept["split"].to_pylist())
    files = [
        f"  - split: {name}\n    path: {DATA}/{name}-*.{SUFFIX[config.container]}" for name in SPLITS if name in present
    ]
    size = next((name for limit, name in _SIZES if len(kept) < limit), "n>1M")
    one = licenses[0].casefold() if len(licenses) == 1 and licenses[0].casefold() in TERMS else "other"
    lines = [
        "---",
        f"license: {one}",
        "task_categories:",
        "- text-to-3d",
        "- image-to-3d",
        "size_categories:",
        f"- {size}",
    ]
    return "\n".join([*lines, "configs:", "- config_name: default", "  data_files:", *files, "---", ""])


def _what(config: DatasetConfig) -> str:
    sizes = "as they were made" if config.size is None else f"{config.size} pixels"
    reader = (
        '`datasets.load_dataset("<this folder>", streaming=True)`' if config.container == "parquet" else "`webdataset`"
    )
    return (
        f"One row an asset: {', '.join((*config.pictures, *config.formats))}; pictures {sizes}.\n"
        f"Read it with {reader}. Objects lie in the unit sphere, +y up.\n"
        "`license` and `models` of a row say what made it.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    """Text that stays in its cell and is no markup."""
    return escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


def _counts(decisions: pa.Table, kept: pa.Table) -> str:
    splits, kinds = Counter(kept["split"].to_pylist()), Counter(kept["kind"].to_pylist())
    rows = [("assets", len(kept)), ("prompts", len(set(kept["prompt"].to_pylist())))]
    rows += [(f"split {name}", splits[name]) for name in SPLITS if splits[name]]
    rows += [(f"made from a {name}", count) for name, count in sorted(kinds.items())]
    rows += [("near-duplicates left out", len(decisions) - len(kept))]
    return _table(("", "count"), rows)


def _runs(runs: Facts, decisions: pa.Table) -> str:
    taken = Counter(kept_of(decisions)["run"].to_pylist())
    rows, failures = [], Counter[str]()
    for label, facts in runs.items():
        dead = sum(facts["failures"].values())
        failures.update(facts["failures"])
        share = facts["assets"] / max(1, facts["assets"] + dead)
        numbers = (facts["assets"], dead, f"{100 * share:.1f}%", facts["chosen"], taken[label])
        costs = (f"{facts['cost_dollars']:.2f}", f"{facts['gpu_seconds']:.0f}", f"{facts['cpu_seconds']:.0f}")
        rows.append((label, *numbers, *costs))
    head = ("run", "assets", "dead letters", "yield", "chosen", "in this set", "dollars", "GPU seconds", "CPU seconds")
    why = _table(("failure", "rows"), failures.most_common()) if failures else "No row failed.\n"
    return f"{_table(head, rows)}\n{why}"


def _rules(config: DatasetConfig, clip: str) -> str:
    dropped = {
        "image": "the first asset of each image cluster is kept",
        "text": "the first asset of each text cluster is kept",
        "either": "an asset is kept if it is the first of its image cluster and of its text cluster",
        "none": "nothing was dropped",
    }[config.drop]
    where = f"Chosen by `{config.where}`. " if config.where else ""
    allow = f"Only models under {', '.join(config.licence_allow)}. " if config.licence_allow else ""
    return (
        f"{where}{allow}Clusters by the embeddings of CLIP {clip}: cosine ≥ {config.image_threshold} of pictures "
        f"(`image_cluster`), ≥ {config.text_threshold} of prompts (`text_cluster`); {dropped}. A cluster is called "
        f"after its first asset. Splits go by prompt: {config.validation:.0%} of the prompts are validation, "
        f"{config.test:.0%} test, and all seeds of a prompt lie in one.\n"
    )


def _scores(kept: pa.Table) -> str:
    rows = []
    for name in sorted(filter(is_measure, kept.column_names)):
        values = np.array([value for value in kept[name].to_pylist() if value is not None], float)
        if len(values):
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            span = f"{values.min():.3g} to {values.max():.3g}"
            rows.append((name, len(values), f"{low:.3g}", f"{middle:.3g}", f"{high:.3g}", histogram(values), span))
    head = ("score", "assets", "5%", "median", "95%", "histogram", "from, to")
    return _table(head, rows) if rows else "The runs have no scores.\n"


def histogram(values: Any) -> str:
    """BINS bars between the least and the largest value; the highest bar is the fullest bin."""
    counts, _ = np.histogram(values, BINS)
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights).replace(" ", "·")


def _models(models: Sequence[Mapping[str, Mapping[str, str]]]) -> str:
    counted = Counter(
        (part, about.get("model", "?"), about.get("revision", "?"), about.get("license", "unknown"))
        for each in models
        for part, about in each.items()
    )
    rows = [(*names, count) for names, count in sorted(counted.items())]
    return _table(("part", "model", "revision", "licence", "assets"), rows) if rows else "No row names its models.\n"


def _licenses(kept: pa.Table, licenses: Sequence[str]) -> str:
    statements = Counter(kept["license"].to_pylist())
    lines = "".join(f"- {sentence}\n" for sentence in allowed_together(licenses))
    note = "This is read from the models' cards and is no legal advice; `--licence-allow` builds a set of some of them."
    return f"{_table(('licence of the asset', 'assets'), statements.most_common())}\nTogether:\n\n{lines}\n{note}\n"
