"""From a study's `data` section to a `Dataset`. Imports no torch, so that a study can be validated without it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data import splits as cutting
from trainer.data.dataset import Array, DataRequest, Dataset, Preprocessing, Split, Task
from trainer.data.preprocessing import encode_table, fit_channels, fit_columns, spell
from trainer.data.sources import (
    Arrays,
    Table,
    image_files,
    read_arrays,
    read_images,
    read_source,
    read_table,
    unknown_column,
)

if TYPE_CHECKING:
    import pandas as pd

FEW_NUMBERS = 20
"""A target of whole numbers is a class label when it has at most this many different ones; with images, `FEW_LABELS`."""

FEW_LABELS = 1000

EXAMPLES = 3

_USUAL_TARGETS = ("target", "label", "class")


@dataclass(frozen=True, kw_only=True)
class _Targets:
    """What is to be predicted.

    Attributes:
        values: Class indices, or float64 values in their own units, one for each row of the source.
        classes: Names in the order of the indices; empty for regression.
    """

    task: Task
    values: Array
    classes: tuple[Any, ...]
    name: str


def load(request: DataRequest) -> Dataset:
    """Reads, checks, splits and encodes a study's data.

    Every statistic (means, deviations, medians, categories, the target's scale) comes from the train split alone.

    Raises:
        DataError: The source can't be read, or does not fit what the study asks of it.
    """
    source = read_source(request.source, request.target)
    try:
        if isinstance(source, Table):
            return _load_table(source, request)
        return _load_arrays(source, request)
    except DataError as error:
        raise error if error.where else DataError(error.message, request.source) from error


def describe(dataset: Dataset) -> dict[str, Any]:
    """The dataset in plain values, for `neurosweep validate`."""
    preprocessing = dataset.preprocessing
    sizes = {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return {
        "kind": preprocessing.kind,
        "task": str(dataset.task),
        "rows": sum(sizes.values()),
        "input_shape": list(dataset.input_shape),
        "target": preprocessing.target_name,
        "classes": list(preprocessing.classes),
        "columns": [column["name"] for column in preprocessing.columns],
        "splits": sizes,
        "split_hash": dataset.split_hash,
    }


def read_rows(path: Path, preprocessing: Preprocessing) -> Any:
    """New raw rows for the champion: a list of mappings for a table, an array for images or bare features.

    Raises:
        DataError: The file can't be read, or is of another kind than what the network was trained on.
    """
    if preprocessing.kind == "image" and (path.is_dir() or path.suffix.lower() not in (".npz",)):
        files = image_files(path) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise DataError("There must be an image, a folder of images or a .npz file here.", str(path))
        pixels = read_images(files)
        if preprocessing.shape[0] == 3 and pixels.ndim == 3:
            pixels = np.repeat(pixels[..., None], 3, axis=3)
        return pixels if preprocessing.channels_last or pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        if "x" not in arrays:
            raise DataError(f"The array 'x' must hold the inputs, but the file has {', '.join(arrays)}.", str(path))
        if preprocessing.kind == "image":
            return arrays["x"]
        return _named(arrays["x"], preprocessing, path)
    if path.suffix not in (".csv", ".parquet", ".jsonl"):
        raise DataError("Rows to predict must be in a .csv, .parquet, .jsonl or .npz file.", str(path))
    frame = read_table(path)
    absent = [column["name"] for column in preprocessing.columns if column["name"] not in frame.columns]
    if absent:
        raise unknown_column("features", absent[0], list(frame.columns), str(path))
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _named(inputs: Array, preprocessing: Preprocessing, path: Path) -> list[dict[str, Any]]:
    names = [column["name"] for column in preprocessing.columns]
    if inputs.ndim != 2 or inputs.shape[1] != len(names):
        raise DataError(f"x must have {len(names)} columns, but its shape is {inputs.shape}.", str(path))
    return [dict(zip(names, row, strict=True)) for row in inputs.tolist()]


# Tables


def _load_table(source: Table, request: DataRequest) -> Dataset:
    frame = source.frame
    frame.columns = [str(name) for name in frame.columns]
    target = _target_column(source, request)
    for key in ("group", "split_column"):
        name = getattr(request, key)
        if name is not None and name not in frame.columns:
            raise unknown_column("group" if key == "group" else "split.column", name, frame.columns, request.source)
    features = _feature_columns(frame, target, request)
    targets = _read_targets(frame[target].to_numpy(), target, request.task, FEW_NUMBERS)
    rows = _split(request, targets, lambda name: frame[name].to_numpy(dtype=object))
    columns = fit_columns(frame.loc[rows.train, features], request.source)
    mean, std = _target_scale(targets, rows.train)
    preprocessing = Preprocessing(
        kind="table",
        task=str(targets.task),
        columns=columns,
        classes=targets.classes,
        target_name=target,
        target_mean=mean,
        target_std=std,
    )

    def split(ids: Array) -> Split:
        return Split(
            inputs=encode_table(frame.loc[ids, features], columns),
            targets=_scaled(targets, ids, mean, std),
            rows=ids,
        )

    example = frame.loc[rows.train[:EXAMPLES], features]
    return _assemble(
        targets, rows, split, preprocessing, example.astype(object).where(example.notna(), None).to_dict("records")
    )


def _target_column(source: Table, request: DataRequest) -> str:
    columns = list(source.frame.columns)
    named = request.target or source.target
    if named is not None:
        if named in columns:
            return named
        if source.target is not None and named in _USUAL_TARGETS:
            return source.target
        raise unknown_column("target", named, columns, request.source)
    usual = [name for name in columns if name.lower() in _USUAL_TARGETS]
    if len(usual) == 1:
        return usual[0]
    listed = ", ".join(columns[:12]) + (" ..." if len(columns) > 12 else "")
    raise DataError(f"data.target must say which column to predict; the columns are {listed}.", request.source)


def _feature_columns(frame: pd.DataFrame, target: str, request: DataRequest) -> list[str]:
    apart = {target, request.group, request.split_column}
    chosen = request.features
    if chosen is None:
        chosen = tuple(name for name in frame.columns if name not in apart)
    for name in chosen:
        if name not in frame.columns:
            raise unknown_column("features", name, frame.columns, request.source)
        if name == target:
            raise DataError(f"data.features must not hold the target, but {name!r} is both.", request.source)
    if not chosen:
        raise DataError("There must be a column besides the target to predict it from.", request.source)
    return list(chosen)


# Arrays and images


def _load_arrays(source: Arrays, request: DataRequest) -> Dataset:
    for key, name in (("features", request.features), ("group", request.group), ("split.column", request.split_column)):
        if name:
            raise DataError(f"data.{key} names columns, but this source has none.", request.source)
    image = source.inputs.ndim == 4
    targets = _read_targets(source.targets, source.target_name, request.task, FEW_LABELS if image else FEW_NUMBERS)
    rows = _split(request, targets, lambda name: np.empty(0))
    mean, std = _target_scale(targets, rows.train)
    common: dict[str, Any] = {
        "task": str(targets.task),
        "classes": targets.classes,
        "target_name": source.target_name,
        "target_mean": mean,
        "target_std": std,
    }
    if image:
        channel_mean, channel_std = fit_channels(source.inputs[rows.train])
        preprocessing = Preprocessing(
            kind="image",
            shape=source.inputs.shape[1:],
            channels_last=source.channels_last,
            mean=channel_mean,
            std=channel_std,
            **common,
        )
        example: Any = source.as_given[rows.train[:EXAMPLES]]

        def inputs(ids: Array) -> Array:
            return source.inputs[ids]

    else:
        import pandas as pd

        frame = pd.DataFrame(source.inputs, columns=[f"x{index}" for index in range(source.inputs.shape[1])])
        columns = fit_columns(frame.loc[rows.train], request.source)
        preprocessing = Preprocessing(kind="table", columns=columns, **common)
        example = frame.loc[rows.train[:EXAMPLES]].to_dict("records")

        def inputs(ids: Array) -> Array:
            return encode_table(frame.loc[ids], columns)

    def split(ids: Array) -> Split:
        return Split(inputs=inputs(ids), targets=_scaled(targets, ids, mean, std), rows=ids)

    return _assemble(targets, rows, split, preprocessing, example)


# What both share


def _read_targets(values: Array, name: str, task: Task | None, few: int) -> _Targets:
    """Class indices or numbers, and which of the two it is.

    Texts and booleans are classes; whole numbers are classes where there are few different ones; all else is regression.

    Raises:
        DataError: A target is missing, there is a single class, or a regression was asked for of texts.
    """
    spelled = [spell(value) for value in values]
    missing = [row for row, value in enumerate(spelled) if value is None]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"Every row must have a target, but {name!r} is missing in {len(missing)} rows: {listed}.")
    numeric = all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in values)
    whole = numeric and all(float(value).is_integer() for value in values)
    if task is None:
        classes = not numeric or (whole and len(set(spelled)) <= few)
        task = Task.CLASSIFICATION if classes else Task.REGRESSION
    if task is Task.REGRESSION:
        if not numeric:
            raise DataError(f"A regression needs a target of numbers, but {name!r} holds texts.")
        numbers = np.asarray(values, dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise DataError(f"Every target must be finite, but {name!r} holds an infinity.")
        return _Targets(task=task, values=numbers, classes=(), name=name)
    names: list[Any] = sorted({int(value) for value in values}) if whole else sorted(set(spelled), key=str)
    if len(names) < 2:
        raise DataError(f"There must be at least two classes, but {name!r} is always {names[0]!r}.")
    if numeric and not whole:
        raise DataError(f"A classification needs classes, but {name!r} holds fractions: say task: regression.")
    index = {str(each): position for position, each in enumerate(names)}
    return _Targets(
        task=task, values=np.asarray([index[str(value)] for value in spelled]), classes=tuple(names), name=name
    )


def _split(request: DataRequest, targets: _Targets, column: Any) -> cutting.SplitRows:
    """The rows of each split; each class is in all three."""
    classification = targets.task is Task.CLASSIFICATION
    rows = np.arange(len(targets.values), dtype=np.int64)
    if classification:
        _check_counts(targets)
    strata = targets.values if classification else cutting.quantiles(targets.values)
    if request.max_rows is not None:
        rows = cutting.sample(rows, strata, request.max_rows, request.seed)
    if request.split_column is not None:
        cut = cutting.split_by_column(rows, column(request.split_column)[rows], request.split_column)
    else:
        fractions = request.fractions or (0.7, 0.15, 0.15)
        groups = column(request.group)[rows] if request.group is not None else None
        cut = cutting.split_by_fractions(rows, strata[rows], fractions, groups, request.seed)
    if classification:
        cutting.check_classes(cut, targets.values, targets.classes)
    return cut


def _check_counts(targets: _Targets) -> None:
    counts = Counter(targets.values.tolist())
    index, count = min(counts.items(), key=lambda item: item[1])
    if count < 3:
        raise DataError(
            f"A class must have a row for each of the three splits, but {targets.classes[index]!r} has {count}: add "
            "rows, merge the class with another, or leave it out."
        )


def _target_scale(targets: _Targets, train: Array) -> tuple[float, float]:
    if targets.task is Task.CLASSIFICATION:
        return 0.0, 1.0
    values = targets.values[train]
    return float(values.mean()), float(values.std()) or 1.0


def _scaled(targets: _Targets, ids: Array, mean: float, std: float) -> Array:
    if targets.task is Task.CLASSIFICATION:
        return targets.values[ids].astype(np.int64)
    return ((targets.values[ids] - mean) / std).astype(np.float32)


def _assemble(
    targets: _Targets, rows: cutting.SplitRows, split: Any, preprocessing: Preprocessing, example: Any
) -> Dataset:
    train = split(rows.train)
    return Dataset(
        task=targets.task,
        train=train,
        validation=split(rows.validation),
        test=split(rows.test),
        preprocessing=preprocessing,
        input_shape=train.inputs.shape[1:],
        outputs=len(targets.classes) or 1,
        split_hash=rows.hash,
        example=example,
    )
