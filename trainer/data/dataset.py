"""The dataset as the trainer sees it: three splits of arrays and how raw rows become such arrays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one split.

    Attributes:
        inputs: float32 of shape (rows, features) for a table, standardised; uint8 or float32 of shape
            (rows, channels, height, width) for images, as they came: `Preprocessing` says how a batch is scaled.
        targets: int64 class indices of shape (rows,), or float32 of shape (rows,), standardised, for regression.
        rows: int64 ids of the rows in the source, ascending.
    """

    inputs: Array
    targets: Array
    rows: Array

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How raw rows become the network's inputs, and its outputs become answers. Plain values, so it can be JSON.

    The rules for a table, which whoever encodes a row has to follow:

    - Each record of `columns` gives its features in turn, in the records' order; the network takes them as float32.
    - A number gives (value - mean) / std, reckoned in float64 (one that float32 can't hold is an error), and, where its
      record has ``"missing": true`` (as the train split lacked a value), a second feature behind it: 1 for a missing
      value, else 0. A missing number is ``fill``, the train split's median, before it is standardised. Missing are
      None, NaN, infinities and blank texts. Another text is read as pandas.to_numeric reads it; one that is no number
      is an error. Mean and std (population, 1 where all are equal) are those of the train split once it is filled.
    - A category gives a feature for each of its ``values``, in their order: 1 for that value and 0 for the others.
      All are 0 for a missing value (None, NaN, a blank text) and for one that is not among them. ``values`` are texts,
      those of the train split in the order of their code points. A raw value is compared as a text: booleans are
      ``True`` and ``False``, a whole number has no decimal point (3 and 3.0 are both ``3``), a text is as it is, spaces
      and case included.
    - Columns of numbers are numbers. In a CSV file, where all is text, a column is one of numbers where every value in
      it that isn't missing reads as one; nothing at all and pandas.read_csv's words for it (such as NA) are missing.

    Attributes:
        kind: ``table`` or ``image``.
        task: ``classification`` or ``regression``.
        columns: For a table, one record for each raw column, in order: ``{"name", "kind": "number", "mean", "std",
            "fill"}``, with ``"missing": true`` where there is an indicator, or ``{"name", "kind": "category",
            "values": [...]}``.
        shape: For images, (channels, height, width) of the network's input.
        channels_last: Whether raw images come as height x width x channels (channels may be missing for grey ones).
        raw_shape: For images, the shape of a raw one, as the network's users hand it in.
        mean: For images, what is subtracted from each channel, in raw units.
        std: For images, what each channel is divided by, in raw units.
        classes: The classes' names in the order of the network's outputs; empty for regression.
        target_name: The predicted column.
        target_mean: For regression, in the target's units: an answer is output * target_std + target_mean.
        target_std: See `target_mean`.
    """

    kind: str
    task: str
    columns: tuple[dict[str, Any], ...] = ()
    shape: tuple[int, ...] = ()
    channels_last: bool = False
    raw_shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str | int | float | bool, ...] = ()
    target_name: str = "target"
    target_mean: float = 0.0
    target_std: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three independent splits of one source.

    Attributes:
        input_shape: Shape of one row of `Split.inputs`: (features,) or (channels, height, width).
        outputs: The network's outputs: the number of classes, or 1 for regression.
        split_hash: SHA-256 of the three splits' row ids, in hexadecimal: equal on every machine for the same study.
        example: Three raw rows from the train split, as a user would hand them to `predict`: a list of mappings from
            column to value for a table, an array of shape (3, ...) for images.
    """

    task: Task
    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing
    input_shape: tuple[int, ...]
    outputs: int
    split_hash: str
    example: Any


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """What the study file says of its data (the study file's own words; see there).

    Attributes:
        source: A name, an absolute path, or ``hf:NAME``.
        fractions: Train, validation and test shares, which add up to 1; None where `split_column` says it.
        split_column: A column whose values are train, validation and test.
        task: None: told from the target.
    """

    source: str
    target: str | None = None
    features: tuple[str, ...] | None = None
    group: str | None = None
    fractions: tuple[float, float, float] | None = (0.7, 0.15, 0.15)
    split_column: str | None = None
    max_rows: int | None = None
    task: Task | None = None
    seed: int = 0
