"""One column of a table as numbers or as texts, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import Array

MISSING = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL"}
    | {"NaN", "None", "n/a", "nan", "null"}
)
"""What a CSV file says for a missing value besides nothing at all: the words that pandas.read_csv takes for one."""


class ColumnKind(StrEnum):
    WHOLE = "whole numbers"
    REAL = "numbers"
    FLAG = "booleans"
    TEXT = "texts"
    OTHER = "other values"
    """Dates, lists, mixtures: nothing a network learns from as it is."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Values of one column, one for each row of the source.

    Attributes:
        values: For numbers float64 of shape (rows,), a missing one NaN; else objects of shape (rows,): texts, a
            missing one None, booleans as ``True`` and ``False``. For `ColumnKind.OTHER` whatever was there.
        type_name: The file's own name for the type, for messages.
    """

    name: str
    kind: ColumnKind
    values: Array
    type_name: str = ""

    @property
    def is_number(self) -> bool:
        return self.kind in (ColumnKind.WHOLE, ColumnKind.REAL)

    @cached_property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Whether each row's value is missing, of shape (rows,)."""
        if self.is_number:
            return np.isnan(self.values)
        return np.fromiter((value is None for value in self.values), np.bool_, len(self.values))

    def raw(self, row: int) -> str | int | float | bool | None:
        """One value as JSON knows it, as a user would hand it in."""
        value = self.values[row]
        if self.is_number:
            return None if np.isnan(value) else int(value) if self.kind is ColumnKind.WHOLE else float(value)
        if self.kind is ColumnKind.FLAG and value is not None:
            return bool(value == "True")
        return None if value is None else str(value)


def column_from_arrow(name: str, data: Any, *, typed: bool, numbers: bool = True) -> Column:
    """A column of a pyarrow table.

    Args:
        data: A pyarrow ChunkedArray.
        typed: Whether the file has types. A CSV file has not: there a column whose every value reads as a number holds
            numbers, and `MISSING` tells what is missing.
        numbers: False: texts stay texts, whatever they read as.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(data.type):
        data = data.cast(data.type.value_type)
    kind, type_name = data.type, str(data.type)
    if pa.types.is_boolean(kind):
        texts = np.array([None if flag is None else str(flag) for flag in data.to_pylist()], dtype=object)
        return Column(name=name, kind=ColumnKind.FLAG, values=texts, type_name=type_name)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole = ColumnKind.WHOLE if pa.types.is_integer(kind) else ColumnKind.REAL
        values = finite(data.cast(pa.float64(), safe=False).to_numpy())
        return Column(name=name, kind=whole, values=values, type_name=type_name)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if is_text or pa.types.is_null(kind):
        texts = _texts(data.to_pylist(), frozenset() if typed else MISSING)
        text = Column(name=name, kind=ColumnKind.TEXT, values=texts, type_name="text")
        return text if typed or not numbers else numbers_from_text(text) or text
    # What `datasets` makes of a column in which JSON lines have values of several types.
    type_name = "a mixture" if "arrow.json" in type_name else type_name
    values = np.empty(len(data), dtype=object)
    values[:] = data.to_pylist()
    return Column(name=name, kind=ColumnKind.OTHER, values=values, type_name=type_name)


def numbers_from_text(column: Column) -> Column | None:
    """The column as numbers where each of its texts reads as one and there is one at least; else None."""
    missing = column.missing
    numbers = read_numbers(column.values)
    if missing.all() or (np.isnan(numbers) & ~missing).any():
        return None
    whole = all(value.strip().lstrip("+-").isdecimal() for value in column.values[~missing])
    kind = ColumnKind.WHOLE if whole else ColumnKind.REAL
    return Column(name=column.name, kind=kind, values=finite(numbers), type_name="text")


def read_numbers(texts: Array) -> npt.NDArray[np.float64]:
    """Texts as pandas.to_numeric reads them, float64; what is no number becomes NaN."""
    import pandas as pd

    return pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64, na_value=np.nan)


def finite(numbers: Array) -> npt.NDArray[np.float64]:
    """Infinities, which no measurement is, count as missing."""
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _texts(values: list[Any], missing: frozenset[str]) -> Array:
    """Objects of shape (rows,): each text as it is; blank ones, and those that say so, become None."""
    told = [None if text is None or not text.strip() or text in missing else text for text in values]
    texts = np.empty(len(told), dtype=object)
    texts[:] = told
    return texts
