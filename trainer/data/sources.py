"""Where data comes from: scikit-learn's sets, files, folders of images, the Hugging Face hub; all as one `Source`."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data.columns import Column, column_from_arrow
from trainer.data.dataset import Array
from trainer.data.images import Images, Picture, check_numbers, images_from_array, images_from_pictures
from trainer.data.readers import NO_ROWS, quiet, read_table
from trainer.data.words import did_you_mean, listed, unknown_column

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")
"""The sets that scikit-learn carries on disk."""

INPUTS, ANSWERS = "x", "y"
"""The arrays of an npz file: its inputs, and the target unless the study names another."""

PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm")
)
"""Ends of the names of images; files with others are left aside."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of a table, or of images with a table beside them (the target, a group, a split column).

    Attributes:
        where: What a message calls it.
        table: A pyarrow.Table.
        typed: Whether its columns have types; a CSV file's have not.
        images: The inputs, unless the table holds them.
        pictured: What the column of images was called, where they came from one.
        inputs: The columns to learn from unless the study names others; None: all that have no other part.
    """

    where: str
    table: Any
    typed: bool = True
    images: Images | None = None
    pictured: str | None = None
    inputs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> list[str]:
        return list(self.table.column_names)

    def column(self, name: str, role: str = "a column", *, numbers: bool = True) -> Column:
        """A column by its name; `numbers` as in `column_from_arrow`.

        Raises:
            DataError: There is none; the message says `role`, the study file's key.
        """
        if name not in self.names:
            raise unknown_column(role, name, self.names, self.where)
        return column_from_arrow(name, self.table[name], typed=self.typed, numbers=numbers)


def open_source(source: str, target: str | None = None, features: Sequence[str] | None = None) -> Source:
    """The rows of a source, images not yet decoded.

    Args:
        source: A name in `BUNDLED`, ``hf:NAME``, or the path of a ``.csv``, ``.parquet``, ``.jsonl`` or ``.npz`` file
            or of a folder of images.
        target: The target's name: an npz file's array; scikit-learn's sets take both ``label`` and ``target``.
        features: The columns to learn from: tells which one where there are several columns of images.

    Raises:
        DataError: It can't be read, is empty or has two columns of one name.
    """
    if source in BUNDLED:
        return _bundled(source, target)
    if source.startswith("hf:"):
        return _hub(source.removeprefix("hf:"), features)
    path = existing(source)
    if path.is_dir():
        try:
            return _image_folder(path)
        except OSError as error:
            raise DataError(f"the folder can't be read: {error.strerror or error}", str(path)) from None
    if path.suffix.lower() == ".npz":
        return _arrays(path, target or ANSWERS)
    return from_dataset(read_table(path), str(path), features, typed=path.suffix.lower() != ".csv")


def existing(path: str | Path) -> Path:
    """The path, if something is there.

    Raises:
        DataError: Nothing is; the message names what is there under a similar name.
    """
    found = Path(path)
    try:
        if found.exists():
            return found
        beside = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else []
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"the data can't be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    hint = did_you_mean(found.name, beside) or f"; sets known by name are {', '.join(BUNDLED)}"
    raise DataError("there is no such file or folder" + hint, str(path))


def _bundled(name: str, target: str | None) -> Source:
    """One of scikit-learn's sets; classes are called by their names."""
    import pyarrow as pa
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    called = target if target in ("label", "target") else "label" if name == "digits" else "target"
    if name == "digits":
        images = images_from_array(bunch.images.astype(np.uint8), name)
        return Source(where=name, table=pa.table({called: bunch.target}), images=images)
    columns = {str(feature): bunch.data[:, index] for index, feature in enumerate(bunch.feature_names)}
    answers = bunch.target if name == "diabetes" else [str(bunch.target_names[index]) for index in bunch.target]
    return Source(where=name, table=pa.table({**columns, called: answers}))


def _hub(name: str, features: Sequence[str] | None) -> Source:
    """A set of the Hugging Face hub, or of its cache on this machine: the splits it comes with are joined, in order.

    datasets 5 runs no code that a set brings.
    """
    where = f"hf:{name}"
    if not HUB_NAME.fullmatch(name):
        raise DataError("hf: must be followed by a set's name, such as hf:ylecun/mnist", where)
    import datasets

    with quiet():
        try:
            loaded = datasets.load_dataset(name)
            dataset = datasets.concatenate_datasets(list(loaded.values()))
        except Exception as error:  # the hub's client raises whatever its transport raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            if isinstance(error, ConnectionError) or "offline" in f"{type(error).__name__} {reason}".lower():
                message = "the Hugging Face hub can't be reached and the set is not in this machine's cache"
                raise DataError(f"{message}: connect, or bring the cache along", where) from None
            raise DataError(f"the set can't be read: {reason}", where) from None
    return from_dataset(dataset, where, features)


def from_dataset(dataset: Any, where: str, features: Sequence[str] | None = None, *, typed: bool = True) -> Source:
    """A `datasets.Dataset` as a `Source`. Where it has a column of images, that is the inputs, and alone.

    Raises:
        DataError: It is empty, or `features` leaves open which column of images is meant.
    """
    import datasets

    if not len(dataset):
        raise DataError(NO_ROWS, where)
    pictured = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    wanted = [name for name in pictured if features is None or name in features]
    if len(wanted) > 1 or (wanted and features is not None and len(features) > 1):
        raise DataError(f"a network takes one column of images and no other: write features: [{wanted[0]}]", where)
    names = [name for name in dataset.column_names if name not in pictured]
    images = images_from_pictures(len(dataset), _stored(dataset, wanted[0], where), where) if wanted else None
    table = dataset.select_columns(names).with_format("arrow")[:]
    for name in names:
        if isinstance(dataset.features[name], datasets.ClassLabel):
            place = table.column_names.index(name)
            table = table.set_column(place, name, _class_names(table[name], dataset.features[name].names))
    return Source(where=where, table=table, typed=typed, images=images, pictured=wanted[0] if wanted else None)


def _stored(dataset: Any, name: str, where: str) -> Callable[[int], Picture]:
    """A column of images as they are stored, encoded, row by row."""
    column = dataset.select_columns([name]).with_format("arrow")[:][name]

    def picture(row: int) -> Picture:
        stored = column[row].as_py() or {}
        content, path = stored.get("bytes"), stored.get("path")
        if content is None and path is None:
            raise DataError(f"every row must have an image, but row {row + 1} has none", where)
        return Picture(path or f"the image in row {row + 1}", content)

    return picture


def _class_names(labels: Any, names: Sequence[str]) -> Any:
    """Labels as names; the hub writes -1 for a row that has none."""
    import pyarrow as pa

    return pa.chunked_array([[None if label is None or label < 0 else names[label] for label in labels.to_pylist()]])


def _image_folder(folder: Path) -> Source:
    """Images in sub-folders, each a class, in the order of their paths."""
    import datasets

    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise DataError("a folder of images must have a sub-folder for each class, but this one has none", str(folder))
    if stray := [entry.name for entry in entries if is_picture(entry)]:
        raise DataError(f"every image must lie in its class's sub-folder, but {listed(stray)} does not", str(folder))
    paths: list[str] = []
    labels: list[int] = []
    for label, place in enumerate(classes):
        found = [path for path in sorted(place.iterdir()) if is_picture(path)]
        if not found:
            inner = any(entry.is_dir() for entry in place.iterdir())
            remedy = f"name {place} if the classes are in there" if inner else "fill it or delete it"
            raise DataError(
                f"every sub-folder must hold images of its class, but {place.name} has none: {remedy}", str(folder)
            )
        paths += map(str, found)
        labels += [label] * len(found)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[place.name for place in classes])}
    )
    dataset = datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features)
    return from_dataset(dataset, str(folder))


def is_picture(path: Path) -> bool:
    """Whether a file is named as an image; hidden ones are not."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _arrays(path: Path, target: str) -> Source:
    """An npz file: images or a table of numbers, the target, and what else has one value a row, such as a group."""
    where = str(path)
    arrays = read_arrays(path)
    if target not in arrays:
        raise unknown_column("target", target, list(arrays), where)
    inputs = array_of_inputs(arrays, where)
    if target not in _columns_beside(arrays, inputs):
        shapes = f"{INPUTS} has the shape {inputs.shape} and {target} {arrays[target].shape}"
        raise DataError(f"the target must have one value for each row of {INPUTS}, but {shapes}", where)
    return table_of_arrays(arrays, inputs, where)


def table_of_arrays(arrays: dict[str, Array], inputs: Array, where: str) -> Source:
    """The inputs and the arrays with one value a row, which are no inputs unless a study names them as features.

    Raises:
        DataError: An array can't be used, or has the name of a column of the inputs.
    """
    import pyarrow as pa

    columns = _columns_beside(arrays, inputs)
    images = images_from_array(inputs, where) if inputs.ndim > 2 else None
    numbers = {} if images else _columns_of(inputs, where)
    if both := sorted(numbers.keys() & columns):
        raise DataError(f"{both[0]} is what a column of {INPUTS} is called: give that array another name", where)
    columns = {**numbers, **columns}
    try:
        table = pa.table({name: array.ravel().astype(array.dtype.newbyteorder("=")) for name, array in columns.items()})
    except pa.ArrowException as error:
        raise DataError(f"an array has a type that can't be used: {error}", where) from None
    return Source(where=where, table=table, images=images, inputs=tuple(numbers))


def _columns_beside(arrays: dict[str, Array], inputs: Array) -> dict[str, Array]:
    """The other arrays that have one value for each row of the inputs."""
    others = {name: array for name, array in arrays.items() if name != INPUTS and array.ndim}
    return {name: array for name, array in others.items() if array.size == len(array) == len(inputs)}


def array_of_inputs(arrays: dict[str, Array], where: str) -> Array:
    """The inputs among an npz file's arrays.

    Raises:
        DataError: There are none.
    """
    if INPUTS not in arrays:
        raise DataError(f"an npz file must hold its inputs as {INPUTS}, but it has {listed(list(arrays))}", where)
    inputs = arrays[INPUTS]
    if not inputs.ndim or not inputs.size:
        raise DataError(f"{NO_ROWS}: {INPUTS} has the shape {inputs.shape}", where)
    return inputs


def _columns_of(inputs: Array, where: str) -> dict[str, Array]:
    """The columns of an array of shape (rows, features) or (rows,), called x0, x1 and so on.

    Raises:
        DataError: They are not finite numbers.
    """
    check_numbers(inputs, INPUTS, where)
    return {f"{INPUTS}{index}": column for index, column in enumerate(inputs.reshape(len(inputs), -1).T)}


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an npz file by name; nothing is unpickled.

    Raises:
        DataError: It is no npz file, or an array in it holds Python objects.
    """
    where = str(path)
    try:
        if not zipfile.is_zipfile(path):  # NumPy would take it for a pickle
            remedy = f"write one with numpy.savez(FILE, {INPUTS}=..., {ANSWERS}=...)"
            raise DataError(f"the file is named as an npz file but is none: {remedy}", where)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "pickle" not in str(error):
            raise DataError(f"the file can't be read as npz: {error}", where) from None
        message = "arrays must hold numbers or text, but here one holds Python objects, which are never unpickled"
        raise DataError(f"{message}: save it with a plain dtype", where) from None
    except (OSError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the file can't be read as npz: {error}", where) from None
