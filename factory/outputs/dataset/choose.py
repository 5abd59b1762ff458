"""Choose assets by a condition over their columns and by licence: `matching`, `of_licenses`, `split_of`."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection

import numpy as np
import pyarrow as pa

from factory.ledger.asset_models import licenses_of
from recon.user_error import UserError


def matching(table: pa.Table, where: str) -> pa.Table:
    """The rows for which a condition in DuckDB's SQL holds, in their order.

    Raises:
        UserError: for a column that does not exist, anything that is no condition, or where DuckDB is missing.
    """
    try:
        import duckdb
    except ImportError as error:
        raise UserError('duckdb is not installed: `pip install -c constraints.txt ".[dataset]"` brings it') from error
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        connection.register("assets", table)
        numbered = "SELECT *, row_number() OVER () - 1 AS im3d_row FROM assets"
        try:
            found = connection.sql(f"SELECT im3d_row FROM ({numbered}) WHERE ({where}\n)")
            rows = np.sort(found.fetchnumpy()["im3d_row"])
        except duckdb.Error as error:
            raise _no_condition(where, str(error), table.column_names) from error
    return table.take(pa.array(rows, pa.int64()))


def _no_condition(where: str, said: str, names: list[str]) -> UserError:
    missing = re.search(r'Referenced column "([^"]+)" not found', said)
    if missing is None:
        reason = said.strip().splitlines()[0]
        return UserError(f"--where {where!r} is no condition over the columns of the runs: {reason}")
    near = difflib.get_close_matches(missing[1], names, 1)
    hint = f"did you mean {near[0]}?" if near else f"Available: {', '.join(sorted(names))}"
    return UserError(f"--where names {missing[1]!r}, which no run has as a column; {hint}")


def of_licenses(table: pa.Table, allowed: Collection[str]) -> pa.Table:
    """The rows all of whose models have a licence among those that are allowed; case does not count."""
    known = {name.casefold() for name in allowed}
    fits = {}
    for models in table["models"].unique().to_pylist():
        names = licenses_of(json.loads(models).values()) or ["unknown"]
        fits[models] = all(name.casefold() in known for name in names)
    return table.filter(pa.array([fits[models] for models in table["models"].to_pylist()], pa.bool_()))


def split_of(prompt: str, prompt_id: str, validation: float, test: float) -> str:
    """The split of an asset, by its prompt alone, or by its id where it has none: all seeds of a prompt fall into one.

    Case and spaces do not count. The same prompt gets the same split in every data set of the same shares.
    """
    text = " ".join(prompt.casefold().split()) or f"id {prompt_id}"
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"
