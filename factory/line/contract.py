"""Hold a stage to the columns that it declares: `declared_rows` for reading, `check_written` after it.

Its rows have the columns of the line's input and those that the stage declares, no others. Whatever else it reads, sets
or leaves unset is an error that names stage, column and way out, and no silent null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from factory.ledger.schemas import ATTEMPT, ERROR, LINE
from factory.line.rows import Row, rows_of

if TYPE_CHECKING:
    from factory.line.stage import Stage

LINE_COLUMNS = tuple(name for name, _ in (*ERROR, *ATTEMPT))
"""What every stage may change of a row beside its own columns."""


class ContractError(RuntimeError):
    """A stage does not do what it declares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a stage declares, by names of columns."""

    stage: str
    reads: frozenset[str]
    """With what it uses where it is there, and its own."""
    sets: tuple[str, ...]
    """What it must set of every row, be it to None."""
    may_set: frozenset[str]

    @classmethod
    def of(cls, stage: type[Stage]) -> Contract:
        """The contract of a stage."""
        columns = [field.name for field in stage.columns()]
        known = {field.name for field in (*stage.reads, *stage.uses)}
        return cls(
            stage=stage.name,
            reads=frozenset({*known, *columns}),
            sets=tuple(name for name in columns if name != f"seconds_{stage.name}"),
            may_set=frozenset({*columns, *LINE_COLUMNS}),
        )

    def refusal(self, name: str) -> ContractError:
        """The error of reading a column that a row does not have."""
        if name in self.reads:
            return ContractError(
                f"stage {self.stage} reads column {name!r}, which nothing has set yet; put a stage that writes it "
                f"before it in the chain, or ask for it by row.get({name!r})"
            )
        return ContractError(
            f"stage {self.stage} reads column {name!r}, which it does not declare; add its field to the stage's "
            "reads, or to its uses where it may be missing"
        )

    def check(self, row: Row, before: Mapping[str, Any]) -> None:
        """Raise ContractError where a row has a column that the stage may not set, or lacks one that it must."""
        for name, value in row.items():
            if name not in self.may_set and not (name in before and value is before[name]):
                raise ContractError(
                    f"stage {self.stage} sets column {name!r}, which it does not declare; add its field to the "
                    "stage's writes"
                )
        for name in self.sets:
            if name not in row and row["error_stage"] is None:
                raise ContractError(
                    f"stage {self.stage} declares column {name!r} and leaves it unset; set it for every row, to None "
                    "where there is no value, or take it out of the stage's writes"
                )


class DeclaredRow(dict[str, Any]):
    """A row as its stage may see it."""

    __slots__ = ("contract",)

    def __init__(self, values: Mapping[str, Any], contract: Contract) -> None:
        super().__init__(values)
        self.contract = contract

    def __missing__(self, name: str) -> Any:
        raise self.contract.refusal(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of any dictionary, for columns that the stage declares."""
        if name not in self and name not in self.contract.reads:
            raise self.contract.refusal(name)
        return super().get(name, default)


def declared_rows(table: pa.Table, stage: type[Stage]) -> list[Row]:
    """The rows of a table with what a stage may see: the line's own small columns, and those that it declares."""
    contract = Contract.of(stage)
    large = [name for name in table.column_names if name in contract.reads]
    seen = contract.reads.union(LINE.names)
    return [DeclaredRow({n: v for n, v in row.items() if n in seen}, contract) for row in rows_of(table, large)]


def check_written(rows: Sequence[Row], before: Sequence[Row]) -> None:
    """Raise ContractError where `process` did not keep to its stage's declaration; `before`: the rows it was given."""
    for row, known in zip(rows, before, strict=True):
        if isinstance(row, DeclaredRow):
            row.contract.check(row, known)
