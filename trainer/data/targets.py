"""The column to predict: which task it makes, its classes, and its values as the trainer takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurosweep.errors import DataError
from trainer.data.columns import Column, ColumnKind
from trainer.data.dataset import Array, Task
from trainer.data.words import quoted, row_numbers

MOST_WHOLE = 20
"""Whole numbers with at most so many values in a table are classes, with more a quantity."""

MOST_WHOLE_IMAGES = 1000
"""The same for images, whose whole numbers are hardly ever a quantity."""

MOST_EXACT = 2**53
"""Up to here float64, which a column's numbers are, holds every whole number."""

ClassName = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """The answers for all rows of the source.

    Attributes:
        classes: The classes' names in order; empty for regression.
        values: int64 indices into `classes`, or float64 in the target's units; of shape (rows,).
    """

    name: str
    task: Task
    classes: tuple[ClassName, ...]
    values: Array


def make_target(column: Column, where: str, *, task: Task | None, images: bool) -> Target:
    """The target as `task` takes it; where that is None the column decides: texts, booleans and whole numbers of few
    values (`MOST_WHOLE`, `MOST_WHOLE_IMAGES`) are classes, other numbers a quantity.

    Classes are in the order of their values: numbers by size, texts by their characters, false before true.

    Raises:
        DataError: A value is missing, no number where the task is regression, or the same in every row; or its numbers
            are too large.
    """
    said = f"the target {quoted(column.name)}"
    if column.kind is ColumnKind.OTHER:
        raise DataError(f"{said} must hold numbers, texts or booleans, but its type is {column.type_name}", where)
    missing = np.flatnonzero(column.missing)
    if len(missing):
        raise DataError(f"{said} must have a value in every row, but {row_numbers(missing)} has none", where)
    task = task or _task_of(column, images)
    if task is Task.REGRESSION:
        return _quantity(column, said, where)
    if column.kind is ColumnKind.WHOLE and np.abs(column.values).max() > MOST_EXACT:
        message = f"{said} must have classes that can be told apart, but whole numbers over {MOST_EXACT:,} can't"
        raise DataError(f"{message}: write a letter before them", where)
    # Python's own sort: texts in the order of their code points, on every machine.
    names = sorted(set(column.values.tolist()))
    if len(names) < 2:
        raise DataError(f"{said} must have two classes at least, but is {quoted(column.raw(0))} in every row", where)
    index = {name: place for place, name in enumerate(names)}
    codes = np.fromiter((index[value] for value in column.values.tolist()), np.int64, len(column.values))
    return Target(name=column.name, task=task, classes=tuple(_class(name, column) for name in names), values=codes)


def _task_of(column: Column, images: bool) -> Task:
    if not column.is_number:
        return Task.CLASSIFICATION
    most = MOST_WHOLE_IMAGES if images else MOST_WHOLE
    few = column.kind is ColumnKind.WHOLE and len(np.unique(column.values)) <= most
    return Task.CLASSIFICATION if few else Task.REGRESSION


def _quantity(column: Column, said: str, where: str) -> Target:
    if not column.is_number:
        message = f"{said} must hold numbers for regression, but row 1 says {quoted(column.raw(0))}"
        raise DataError(f"{message}: write task: classification", where)
    if column.values.min() == column.values.max():
        raise DataError(f"{said} must differ between rows, but is {quoted(column.raw(0))} in all of them", where)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        variance = np.var(column.values)
    if not 0 < variance < np.inf:
        raise DataError(f"{said} holds numbers too large or too close together to standardise: rescale it", where)
    return Target(name=column.name, task=Task.REGRESSION, classes=(), values=column.values)


def _class(name: str | float, column: Column) -> ClassName:
    if column.kind is ColumnKind.FLAG:
        return name == "True"
    return int(name) if isinstance(name, float) and name.is_integer() else name


def check_class_sizes(target: Target, rows: Array, where: str, *, sampled: bool) -> None:
    """Raises `DataError` where a class has too few of these rows to be in all three splits."""
    sizes = np.bincount(target.values[rows], minlength=len(target.classes))
    few = np.flatnonzero(sizes < 3)
    if not len(few):
        return
    told = f"class {quoted(target.classes[few[0]])} has {sizes[few[0]]}"
    more = f" (of {len(sizes):,} classes {len(few):,} have too few)" if len(few) > 1 else ""
    remedy = "raise max_rows" if sampled else "add rows of it, or leave it out"
    if not isinstance(target.classes[0], str | bool):
        remedy += ", or write task: regression if the target is a quantity"
    raise DataError(f"every class must have 3 rows at least, one for each split, but {told}{more}: {remedy}", where)
