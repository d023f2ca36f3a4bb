"""Raw rows and images for predictions, from a file that needs no target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data.columns import Column, ColumnKind, read_numbers
from trainer.data.dataset import Array, Preprocessing
from trainer.data.images import Images, Picture, check_fits, images_from_array, images_from_pictures
from trainer.data.readers import read_table
from trainer.data.sources import (
    PICTURE_SUFFIXES,
    Source,
    array_of_inputs,
    existing,
    from_dataset,
    is_picture,
    read_arrays,
    table_of_arrays,
)
from trainer.data.words import quoted

Raw = str | int | float | bool | None


def read_rows(path: str | Path, preprocessing: Preprocessing) -> list[dict[str, Raw]] | Array:
    """Rows as a trained network's champion takes them.

    Args:
        path: For a table a ``.csv``, ``.parquet``, ``.jsonl`` or ``.npz`` file with the columns that the network learnt
            from, and any others. For images an image, a folder of images (sub-folders included, in the order of their
            paths), an ``.npz`` file or a table with a column of images.

    Returns:
        For a table a mapping for each row, from column to value. For images an array of shape (rows, ...) in
        the layout of those that the network learnt from.

    Raises:
        DataError: The file can't be read, or its rows are not what the network was trained on.
    """
    file = existing(path)
    if preprocessing.kind == "image":
        images, count = _images(file, preprocessing.shape[0])
        check_fits(images, preprocessing.shape, str(file))
        return _as_trained(images.channels_first(np.arange(count)), preprocessing)
    source = _table(file)
    columns = [_column(source, record) for record in preprocessing.columns]
    return [{column.name: column.raw(row) for column in columns} for row in range(len(source))]


def _table(file: Path) -> Source:
    where = str(file)
    if file.is_dir() or file.suffix.lower() in PICTURE_SUFFIXES:
        raise DataError("the model takes rows of a table, but this is no table", where)
    if file.suffix.lower() == ".npz":
        arrays = read_arrays(file)
        return table_of_arrays(arrays, array_of_inputs(arrays, where), where)
    return from_dataset(read_table(file), where, typed=file.suffix.lower() != ".csv")


def _column(source: Source, record: dict[str, Any]) -> Column:
    """A column of the kind that the network learnt from.

    A category stays text even where all its values read as numbers: 007 is not 7.
    """
    name = record["name"]
    number = record["kind"] == "number"
    column = source.column(name, "each column that the model learnt from", numbers=number)
    if column.kind is ColumnKind.OTHER or (number and column.kind is ColumnKind.FLAG):
        wanted = "numbers" if number else "texts"
        raise DataError(f"column {quoted(name)} must hold {wanted}, but its type is {column.type_name}", source.where)
    if not number or column.is_number:
        return column
    numbers = read_numbers(column.values)
    strange = np.flatnonzero(np.isnan(numbers) & ~column.missing)
    if len(strange):
        said = f"row {strange[0] + 1} says {quoted(column.values[strange[0]])}"
        raise DataError(f"column {quoted(name)} must hold numbers, but {said}", source.where)
    return Column(name=name, kind=ColumnKind.REAL, values=numbers)


def _as_trained(images: Array, preprocessing: Preprocessing) -> Array:
    """Images of shape (rows, channels, height, width) as the network's users hand them in."""
    if len(preprocessing.raw_shape) == 2:
        return images[:, 0]
    return images.transpose(0, 2, 3, 1) if preprocessing.channels_last else images


def _images(file: Path, channels: int) -> tuple[Images, int]:
    """The images in a file or folder, and how many they are."""
    where = str(file)
    if file.is_dir():
        pictures = [Picture(str(path), None) for path in sorted(file.rglob("*")) if is_picture(path)]
        if not pictures:
            raise DataError("there must be at least one image, but this folder has none", where)
    elif file.suffix.lower() in PICTURE_SUFFIXES:
        pictures = [Picture(where, None)]
    elif file.suffix.lower() == ".npz":
        inputs = array_of_inputs(read_arrays(file), where)
        return images_from_array(inputs, where), len(inputs)
    else:
        source = from_dataset(read_table(file), where)
        if source.images is None:
            raise DataError("the model takes images, but this table has no column of them", where)
        return source.images, len(source)
    return images_from_pictures(len(pictures), pictures.__getitem__, where, channels), len(pictures)
