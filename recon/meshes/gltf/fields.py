"""Read one object of a glTF's JSON with checks: `Fields`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object, and where it lies, as in "accessors[3].sparse". Every reader raises ValueError that says both."""

    values: dict[str, Any]
    where: str

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of 0 or more; without a default it must be there."""
        value = self.values.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(key, value, "a whole number of 0 or more")
        return value

    def optional(self, key: str) -> int | None:
        """A whole number of 0 or more, or None where it is not given."""
        return self.whole(key) if key in self.values else None

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        return _finite(self.values.get(key, default), self._at(key))

    def numbers(self, key: str, default: tuple[float, ...]) -> list[float]:
        """As many finite numbers as the default has."""
        value = self.values.get(key, list(default))
        if not isinstance(value, list) or len(value) != len(default):
            raise self._wrong(key, value, f"a list of {len(default)} numbers")
        return [_finite(number, self._at(key)) for number in value]

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def items(self, key: str) -> list[Any]:
        """A list, empty where it is not given."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return value

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers of 0 or more."""
        return [Fields({"": value}, self._at(key)).whole("") for value in self.items(key)]

    def child(self, key: str) -> Fields:
        """An object, empty where it is not given."""
        return fields_of(self.values.get(key, {}), self._at(key))

    def children(self, key: str) -> list[Fields]:
        """A list of objects."""
        return [fields_of(value, f"{self._at(key)}[{place}]") for place, value in enumerate(self.items(key))]

    def _at(self, key: str) -> str:
        return ".".join(part for part in (self.where, key) if part)

    def _wrong(self, key: str, value: Any, wanted: str) -> ValueError:
        found = "missing" if key not in self.values and value is None else repr(value)[:80]
        return ValueError(f"{self._at(key)} is {found}; it must be {wanted}")


def fields_of(value: Any, where: str) -> Fields:
    """A JSON value as an object; ValueError when it is none."""
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the JSON'} is {repr(value)[:80]}; it must be an object")
    return Fields(value, where)


def _finite(value: Any, where: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{where} holds {repr(value)[:80]}; it must be a finite number")
    return number
