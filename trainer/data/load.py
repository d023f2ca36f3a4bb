"""From what a study says of its data to three splits of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data import splits
from trainer.data.columns import Column, ColumnKind
from trainer.data.dataset import Array, DataRequest, Dataset, Preprocessing, Split, Task
from trainer.data.images import Images
from trainer.data.preprocessing import encode_table, encode_target, feature_count, fit_images, fit_table
from trainer.data.roles import Roles, choose_roles
from trainer.data.rows import read_rows
from trainer.data.sources import Source, open_source
from trainer.data.targets import Target, check_class_sizes, make_target
from trainer.data.words import about, quoted

__all__ = ["describe", "load", "raw_columns", "read_rows"]

FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of train, validation and test in a study that says neither shares nor a column."""

EXAMPLES = 3
"""Raw rows that `Dataset.example` has."""


def load(request: DataRequest) -> Dataset:
    """The three splits of a study's data; every statistic is the train split's.

    Raises:
        DataError: The data can't be read, or does not fit what the study asks of it.
    """
    source = open_source(request.source, request.target, request.features)
    roles = choose_roles(source, request)
    column = source.column(roles.target)
    with about("data.target"):
        target = make_target(column, source.where, task=request.task, images=source.images is not None)
    parts = _parts(source, roles, target, request)
    inputs, preprocessing, example = (
        _images(source.images, target, parts) if source.images else _table(source, roles, target, parts)
    )
    train, validation, test = (
        Split(inputs=array, targets=encode_target(preprocessing, target, rows), rows=rows)
        for array, rows in zip(inputs, parts, strict=True)
    )
    return Dataset(
        task=target.task,
        train=train,
        validation=validation,
        test=test,
        preprocessing=preprocessing,
        input_shape=train.inputs.shape[1:],
        outputs=max(1, len(target.classes)),
        split_hash=splits.split_hash(parts),
        example=example,
    )


def raw_columns(request: DataRequest, preprocessing: Preprocessing) -> list[Column]:
    """The columns of a table as its source has them, all rows, in the order of `preprocessing.columns`.

    Raises:
        DataError: The source can't be read any more, or lacks a column.
    """
    source = open_source(request.source, request.target, request.features)
    return [source.column(record["name"]) for record in preprocessing.columns]


def describe(dataset: Dataset) -> dict[str, Any]:
    """What a dataset holds, as JSON values in the order in which people want them."""
    preprocessing = dataset.preprocessing
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    told: dict[str, Any] = {
        "kind": preprocessing.kind,
        "task": str(dataset.task),
        "rows": sum(map(len, parts.values())),
        "input_shape": list(dataset.input_shape),
    }
    if preprocessing.kind == "table":
        told["columns"] = len(preprocessing.columns)
        told["features"] = feature_count(preprocessing)
    told["target"] = preprocessing.target_name
    if dataset.task is Task.CLASSIFICATION:
        told["classes"] = list(preprocessing.classes)
    else:
        ends = [end(part.targets) for part in parts.values() for end in (np.min, np.max)]
        scale, shift = preprocessing.target_std, preprocessing.target_mean
        told["target_range"] = [float(f"{end(ends) * scale + shift:.6g}") for end in (np.min, np.max)]
    told["splits"] = {name: len(part) for name, part in parts.items()}
    told["split_hash"] = dataset.split_hash
    return told


def _parts(source: Source, roles: Roles, target: Target, request: DataRequest) -> list[Array]:
    """Ascending row ids of the three splits, each with what it needs."""
    told = None
    if roles.split:
        with about("data.split"):
            told = splits.split_by_column(_labels(source, roles.split), roles.split, source.where)
    groups = _labels(source, roles.group) if roles.group else None
    if groups and None in groups:
        message = f"the group {quoted(roles.group)} must have a value in every row"
        with about("data.group"):
            raise DataError(f"{message}, but row {groups.index(None) + 1} has none", source.where)
    rows = _sampled(target, told, request)
    if target.task is Task.CLASSIFICATION and told is None:
        sampled = len(rows) < len(source)
        with about("data.max_rows" if sampled else "data.target"):
            check_class_sizes(target, rows, source.where, sampled=sampled)
    if len(rows) < len(splits.SPLITS):
        raise DataError(f"there must be 3 rows at least, one for each split, but there are {len(rows)}", source.where)
    codes = None if groups is None else _codes(groups)[rows]
    dealt = told[rows] if told is not None else _dealt(_strata(target, rows), codes, request, source.where)
    _check_parts(dealt, target.values[rows], codes, target, source.where)
    return [rows[dealt == place] for place in range(len(splits.SPLITS))]


def _sampled(target: Target, told: Array | None, request: DataRequest) -> Array:
    """Row ids that the study uses: all, or a sample in which each class (and each told split) keeps its share."""
    rows = np.arange(len(target.values))
    if request.max_rows is None or request.max_rows >= len(rows):
        return rows
    strata = _strata(target, rows)
    if told is not None:
        strata = strata * len(splits.SPLITS) + told
    return splits.sample(strata, request.max_rows, request.seed)


def _strata(target: Target, rows: Array) -> Array:
    values = target.values[rows]
    return values if target.task is Task.CLASSIFICATION else splits.quantiles(values)


def _dealt(strata: Array, groups: Array | None, request: DataRequest, where: str) -> Array:
    fractions = request.fractions or FRACTIONS
    if groups is None:
        return splits.split_by_fractions(strata, fractions, request.seed)
    distinct, codes = np.unique(groups, return_inverse=True)
    if len(distinct) < len(splits.SPLITS):
        raise DataError(f"there must be 3 groups at least, one for each split, but there are {len(distinct)}", where)
    return splits.split_groups(strata, codes, fractions, request.seed)


def _check_parts(dealt: Array, values: Array, groups: Array | None, target: Target, where: str) -> None:
    for place, name in enumerate(splits.SPLITS):
        if not (dealt == place).any():
            raise DataError(f"every split must have rows, but max_rows leaves none for {name}: raise max_rows", where)
    if groups is not None:
        pairs = np.unique(groups * len(splits.SPLITS) + dealt) // len(splits.SPLITS)
        if len(set(pairs.tolist())) < len(pairs):
            raise DataError("rows of one group must be in one split, but the split column parts some groups", where)
    if target.task is Task.CLASSIFICATION:
        learnt = np.bincount(values[dealt == 0], minlength=len(target.classes))
        if not learnt.all():
            name = quoted(target.classes[int(learnt.argmin())])
            remedy = "spread its rows over the splits or over more groups, or leave them out"
            raise DataError(f"every class must have rows in the train split, but {name} has none: {remedy}", where)


def _labels(source: Source, name: str) -> list[str | None]:
    """A group or split column as texts."""
    column = source.column(name)
    if column.kind is ColumnKind.WHOLE:  # from the source: as float64, long ids would be one
        stored = zip(source.table[name].to_pylist(), column.missing, strict=True)
        return [None if missing else str(int(value)) for value, missing in stored]
    values = [column.raw(row) for row in range(len(column.values))]
    return [None if value is None else str(value) for value in values]


def _codes(labels: list[str | None]) -> Array:
    codes = {label: code for code, label in enumerate(sorted(set(labels), key=str))}
    return np.array([codes[label] for label in labels], np.int64)


def _images(images: Images, target: Target, parts: list[Array]) -> tuple[list[Array], Preprocessing, Array]:
    """Inputs of each split, the train split's figures, and the first raw images."""
    inputs = [images.channels_first(rows) for rows in parts]
    example = images.take(parts[0][:EXAMPLES])
    fitted = fit_images(
        inputs[0], raw_shape=example.shape[1:], channels_last=images.channels_last, target=target, train=parts[0]
    )
    return inputs, fitted, example


def _table(
    source: Source, roles: Roles, target: Target, parts: list[Array]
) -> tuple[list[Array], Preprocessing, list[dict[str, Any]]]:
    """Inputs of each split, the train split's figures, and the first raw rows."""
    columns = [source.column(name) for name in roles.features]
    fitted = fit_table(columns, target, parts[0], source.where)
    example = [{column.name: column.raw(row) for column in columns} for row in parts[0][:EXAMPLES]]
    return [encode_table(fitted, columns, rows, source.where) for rows in parts], fitted, example
