"""Statistics of the train split, and raw columns as the network's inputs by them. `Preprocessing` has the rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data.columns import Column, ColumnKind, read_numbers
from trainer.data.dataset import Array, Preprocessing, Task
from trainer.data.targets import Target
from trainer.data.words import quoted, row_numbers

MOST_VALUES = 1000
"""Texts with more different values than this are no category."""

MOST_DISTINCT, FEW_ROWS = 0.9, 20
"""Nor are they where more than this share of the values are different, told from more than so many rows."""

CHUNK = 2**22
"""Pixels that are summed at a time: bounds memory."""


def fit_table(columns: Sequence[Column], target: Target, train: Array, where: str) -> Preprocessing:
    """What the train split says of a table.

    Args:
        train: Row ids of the train split.

    Raises:
        DataError: A column holds nothing a network can learn from; the message names it and says what to write.
    """
    found = {column.name: _fault(column, train) for column in columns}
    faults = [(name, *fault) for name, fault in found.items() if fault]
    if faults:
        name, fault, remedy = faults[0]
        good = [name for name in found if not found[name]]
        listing = f"features: [{', '.join(good)}]" if 0 < len(good) <= 12 else "a list of features"
        more = f" (and {len(faults) - 1} more such columns)" if len(faults) > 1 else ""
        raise DataError(f"column {quoted(name)} {fault}{more}: {remedy}leave it out with {listing}", where)
    records = tuple(_record(column, train, where) for column in columns)
    return Preprocessing(kind="table", columns=records, **_of_target(target, train))


def fit_images(
    inputs: Array, *, raw_shape: tuple[int, ...], channels_last: bool, target: Target, train: Array
) -> Preprocessing:
    """What the train split says of images.

    Args:
        inputs: The train split's images, (rows, channels, height, width).
        raw_shape: Of one image in the source.
        train: Their row ids.
    """
    pixels = len(inputs) * inputs.shape[2] * inputs.shape[3]
    chunks = np.array_split(inputs, inputs.size // CHUNK + 1)
    mean = sum(chunk.sum(axis=(0, 2, 3), dtype=np.float64) for chunk in chunks) / pixels
    squares = sum(((chunk - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3)) for chunk in chunks)
    std = np.sqrt(squares / pixels)
    return Preprocessing(
        kind="image",
        shape=inputs.shape[1:],
        raw_shape=raw_shape,
        channels_last=channels_last,
        mean=tuple(mean.tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),
        **_of_target(target, train),
    )


def encode_table(preprocessing: Preprocessing, columns: Sequence[Column], rows: Array, where: str) -> Array:
    """These rows as the network's inputs, float32 of shape (rows, features).

    Args:
        columns: Those of `preprocessing.columns`, in that order.

    Raises:
        DataError: A number is too large for float32 once it is standardised.
    """
    encoded = np.zeros((len(rows), feature_count(preprocessing)), np.float32)
    at = 0
    for column, record in zip(columns, preprocessing.columns, strict=True):
        values = column.values[rows]
        if record["kind"] == "category":
            places = {name: at + place for place, name in enumerate(record["values"])}
            for row, value in enumerate(values):
                if value in places:
                    encoded[row, places[value]] = 1
        else:
            missing = np.isnan(values)
            with np.errstate(over="ignore"):
                encoded[:, at] = (np.where(missing, record["fill"], values) - record["mean"]) / record["std"]
            if not np.isfinite(encoded[:, at]).all():
                raise _too_large(f"column {quoted(column.name)}", where)
            if record.get("missing"):
                encoded[:, at + 1] = missing
        at += _width(record)
    return encoded


def _too_large(what: str, where: str) -> DataError:
    return DataError(f"{what} holds numbers too large to standardise: rescale it, or leave such a value empty", where)


def encode_target(preprocessing: Preprocessing, target: Target, rows: Array) -> Array:
    """These rows' answers: int64 class indices, or float32 standardised ones, of shape (rows,)."""
    if target.task is Task.CLASSIFICATION:
        return target.values[rows]
    return ((target.values[rows] - preprocessing.target_mean) / preprocessing.target_std).astype(np.float32)


def feature_count(preprocessing: Preprocessing) -> int:
    """The width of an encoded table."""
    return sum(_width(record) for record in preprocessing.columns)


def feature_slices(preprocessing: Preprocessing) -> list[slice]:
    """Where the features of each raw column are in an encoded row."""
    ends = list(accumulate((_width(record) for record in preprocessing.columns), initial=0))
    return [slice(start, end) for start, end in pairwise(ends)]


def _width(record: dict[str, Any]) -> int:
    return len(record["values"]) if record["kind"] == "category" else 1 + bool(record.get("missing"))


def _fault(column: Column, train: Array) -> tuple[str, str] | None:
    """Why a network can't learn from a column, and what to do unless it is left out; None where it can."""
    if column.kind is ColumnKind.OTHER:
        if column.type_name.startswith(("timestamp", "date", "time", "duration")):
            return "holds dates or times, which say nothing as they are", "make numbers such as the month of them, or "
        return f"holds {column.type_name}, but only numbers, texts and booleans can be learnt from", ""
    present = column.values[train][~column.missing[train]]
    if not len(present):
        return "has no value in any row of the train split", ""
    if column.kind is not ColumnKind.TEXT:
        return None
    distinct = len(set(present.tolist()))
    if distinct <= MOST_VALUES and (len(present) <= FEW_ROWS or distinct <= MOST_DISTINCT * len(present)):
        return None
    strange = np.flatnonzero(np.isnan(read_numbers(column.values)) & ~column.missing)
    if 0 < len(strange) < len(column.values) / 2:
        said = f"{row_numbers(strange[:1])} says {quoted(column.values[strange[0]])}"
        return f"would hold numbers, but {said}", "repair that, or "
    limit = f"a category has at most {MOST_VALUES:,}, most of them more than once"
    return f"holds {distinct:,} different texts in the {len(present):,} rows of the train split, but {limit}", ""


def _record(column: Column, train: Array, where: str) -> dict[str, Any]:
    """What `Preprocessing.columns` keeps of a column."""
    present = column.values[train][~column.missing[train]]
    if not column.is_number:
        return {"name": column.name, "kind": "category", "values": sorted(set(present.tolist()))}
    with np.errstate(over="ignore", invalid="ignore"):
        fill = float(np.median(present))
        mean, std = _mean_and_std(np.where(np.isnan(column.values[train]), fill, column.values[train]))
    if not np.isfinite([fill, mean, std]).all():
        raise _too_large(f"column {quoted(column.name)}", where)
    missing = {"missing": True} if len(present) < len(train) else {}
    return {"name": column.name, "kind": "number", "mean": mean, "std": std, "fill": fill, **missing}


def _of_target(target: Target, train: Array) -> dict[str, Any]:
    mean, std = (0.0, 1.0) if target.task is Task.CLASSIFICATION else _mean_and_std(target.values[train])
    return {
        "task": target.task.value,
        "classes": target.classes,
        "target_name": target.name,
        "target_mean": mean,
        "target_std": std,
    }


def _mean_and_std(values: Array) -> tuple[float, float]:
    """Mean and population standard deviation, which is 1 where all values are equal."""
    varies = values.min() < values.max()  # rounding can give equal values a tiny deviation
    return float(values.mean()), float(values.std()) or 1.0 if varies else 1.0
