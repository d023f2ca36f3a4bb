"""Reads a source whole: a named dataset, a table file, arrays, or a folder of images. Readers are imported when used."""

from __future__ import annotations

import difflib
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurosweep.errors import DataError
from trainer.data.dataset import Array

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("digits", "iris", "wine", "breast_cancer", "diabetes")
"""The datasets that come with scikit-learn."""

_TABLES = {".csv": "csv", ".parquet": "parquet", ".jsonl": "json"}
"""A table file's ending, and the builder of Hugging Face `datasets` that reads it."""

_ONE_CHUNK = 2**30
"""`datasets` tells each column's type from the first chunk; a whole file in one chunk leaves nothing to contradict it."""

_IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with named columns.

    Attributes:
        target: The column to predict, where the source itself says it.
    """

    frame: pd.DataFrame
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Inputs and targets without column names.

    Attributes:
        inputs: Shape (rows, features), or (rows, channels, height, width) for images.
        channels_last: Whether the source had height x width x channels.
        as_given: The inputs in the source's own layout, for examples.
    """

    inputs: Array
    targets: Array
    target_name: str
    channels_last: bool
    as_given: Array


def read_source(source: str, target: str | None) -> Table | Arrays:
    """Reads everything that a study's `data.source` names.

    Args:
        source: A name, ``hf:NAME``, or a path.
        target: The study file's `data.target`; here only the name of an array in a ``.npz``.

    Raises:
        DataError: It is not there, or can't be read; the message says what would be right.
    """
    if source in NAMES:
        return _scikit_learn(source)
    if source.startswith("hf:"):
        return _hugging_face(source.removeprefix("hf:"), target)
    path = Path(source)
    if path.is_dir():
        return _image_folder(path)
    _check_file(path)
    if path.suffix == ".npz":
        return _npz(path, target)
    if path.suffix in _TABLES:
        return Table(frame=read_table(path))
    raise DataError(
        f"A source must be one of {', '.join(NAMES)}, hf:NAME, a folder of images, or a file that ends in .csv, "
        f".parquet, .jsonl or .npz, but it ends in {path.suffix or 'nothing'!r}.",
        source,
    )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, Parquet or JSON-lines file as a frame.

    Raises:
        DataError: It is missing, empty, or not what its ending says.
    """
    _check_file(path)
    builder = _TABLES[path.suffix]
    options: dict[str, Any] = {} if builder == "parquet" else {"chunksize": _ONE_CHUNK}
    with _quiet_datasets() as datasets, tempfile.TemporaryDirectory() as cache:
        # A cache of its own each time: the file may have changed, and nothing is to be left behind.
        frame: pd.DataFrame = _reading(
            str(path),
            lambda: datasets.load_dataset(
                builder, data_files=str(path), split="train", cache_dir=cache, **options
            ).to_pandas(),
        )
    if frame.empty:
        raise DataError("The file has no rows.", str(path))
    repeated = [str(name) for name in frame.columns if str(name).endswith(".1") and str(name)[:-2] in frame.columns]
    if repeated and builder == "csv":
        raise DataError(f"Each column must have a name of its own, but {repeated[0][:-2]!r} is there twice.", str(path))
    return frame


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a ``.npz`` file; pickled objects are refused.

    Raises:
        DataError: It is no such file, or it holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as exc:
        raise DataError(
            "Arrays must be of plain numbers or text, but one holds Python objects, which are never loaded: "
            "save it with a numeric dtype.",
            str(path),
        ) from exc
    except (OSError, EOFError, zipfile.BadZipFile, KeyError) as exc:
        raise DataError(f"The file is not a readable .npz: {_reason(exc)}", str(path)) from exc


def read_images(paths: Sequence[Path]) -> Array:
    """Images as one uint8 array of shape (rows, height, width) for grey ones, (rows, height, width, 3) for others.

    Raises:
        DataError: One can't be read, or they differ in size.
    """
    from PIL import Image

    pixels = []
    with warnings.catch_warnings():
        # An image that unpacks to gigabytes is an attack or a mistake.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path in paths:
            try:
                with Image.open(path) as image:
                    pixels.append(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as exc:
                raise DataError(f"This image can't be read: {_reason(exc)}", str(path)) from exc
    if any(each.ndim == 3 for each in pixels):
        pixels = [each if each.ndim == 3 else np.repeat(each[..., None], 3, axis=2) for each in pixels]
    sizes = sorted({f"{each.shape[1]}x{each.shape[0]}" for each in pixels})
    if len(sizes) > 1:
        listed = ", ".join(sizes[:4]) + (" ..." if len(sizes) > 4 else "")
        raise DataError(f"Images must all be of one size, but these are {listed}: resize them first.", str(paths[0]))
    return np.stack(pixels)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_ENDINGS and path.is_file())


def as_images(pixels: Array, where: str) -> tuple[Array, bool]:
    """Pixels with the channels in front: (rows, channels, height, width), and whether they came last.

    Raises:
        DataError: The shape is none of rows x height x width, with 1 or 3 channels behind or before it.
    """
    if pixels.ndim == 3:
        return pixels[:, None], True
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), True
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3):
        return pixels, False
    raise DataError(
        "Images must be rows x height x width, with 1 or 3 channels behind or before it if any, but this array has the "
        f"shape {pixels.shape}.",
        where,
    )


def _scikit_learn(name: str) -> Table | Arrays:
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")(as_frame=name != "digits")
    if name == "digits":
        pixels = loaded.images.astype(np.uint8)
        return Arrays(
            inputs=pixels[:, None],
            targets=loaded.target,
            target_name="label",
            channels_last=True,
            as_given=pixels,
        )
    frame = loaded.frame
    if name != "diabetes":
        frame = frame.assign(target=loaded.target_names[frame["target"]])
    return Table(frame=frame, target="target")


def _hugging_face(name: str, target: str | None) -> Table | Arrays:
    with _quiet_datasets() as datasets:
        splits = _reading(f"hf:{name}", lambda: datasets.load_dataset(name))
        # Its own splits are joined: the study file says how rows are split, the same way for every source.
        rows = datasets.concatenate_datasets(list(splits.values()))
        pictures = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        labels = {key: f.names for key, f in rows.features.items() if isinstance(f, datasets.ClassLabel)}
        if not pictures:
            frame = rows.to_pandas()
            for key, names in labels.items():
                frame[key] = [None if index < 0 else names[index] for index in frame[key]]
            return Table(frame=frame)
        chosen = target or ("label" if "label" in rows.column_names else next(iter(labels), None))
        if chosen not in rows.column_names:
            raise unknown_column("target", chosen or "", rows.column_names, f"hf:{name}")
        given = _same_size([np.asarray(_plain_mode(image)) for image in rows[pictures[0]]], f"hf:{name}")
        targets = np.asarray(rows[chosen])
        if chosen in labels:
            targets = np.asarray(labels[chosen])[targets]
    inputs, channels_last = as_images(given, f"hf:{name}")
    return Arrays(inputs=inputs, targets=targets, target_name=str(chosen), channels_last=channels_last, as_given=given)


def _plain_mode(image: Any) -> Any:
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _same_size(pixels: list[Array], where: str) -> Array:
    shapes = sorted({each.shape for each in pixels})
    if len(shapes) > 1:
        raise DataError(f"Images must all be of one size, but these are {shapes[:4]}.", where)
    return np.stack(pixels)


def _image_folder(folder: Path) -> Arrays:
    """One sub-folder a class; its name is the class. `datasets` lists the files, and they are decoded here, so that a
    damaged one can be named."""
    if not any(child.is_dir() for child in folder.iterdir()):
        raise DataError(
            "A folder of images must have one sub-folder for each class, but this one has none.", str(folder)
        )
    if not image_files(folder):
        raise DataError("There is no image in this folder's sub-folders.", str(folder))
    with _quiet_datasets() as datasets, tempfile.TemporaryDirectory() as cache:
        splits = _reading(
            str(folder),
            lambda: datasets.load_dataset("imagefolder", data_dir=str(folder), drop_labels=True, cache_dir=cache),
        )
        paths = []
        for rows in splits.values():
            paths += [Path(row["path"]) for row in rows.cast_column("image", datasets.Image(decode=False))["image"]]
    # The order must not depend on how a file system lists its entries.
    paths.sort()
    given = read_images(paths)
    inputs, channels_last = as_images(given, str(folder))
    targets = np.asarray([path.parent.name for path in paths])
    return Arrays(inputs=inputs, targets=targets, target_name="class", channels_last=channels_last, as_given=given)


def _npz(path: Path, target: str | None) -> Arrays:
    arrays = read_arrays(path)
    name = target or "y"
    for wanted, key in (("x", "inputs"), (name, "targets")):
        if wanted not in arrays:
            raise DataError(
                f"The array {wanted!r} must hold the {key}, but the file has {', '.join(map(repr, arrays)) or 'none'}"
                + (": data.target names the targets' array." if key == "targets" else "."),
                str(path),
            )
    given, targets = arrays["x"], arrays[name]
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 or given.ndim < 2 or len(given) != len(targets):
        raise DataError(
            f"There must be one target for each row, but x has the shape {given.shape} and {name} {targets.shape}.",
            str(path),
        )
    if given.dtype != np.uint8:
        if not np.issubdtype(given.dtype, np.number) or np.iscomplexobj(given):
            raise DataError(f"x must be numbers, but its dtype is {given.dtype}.", str(path))
        given = given.astype(np.float32)
    for key, values in (("x", given), (name, targets)):
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(f"{key} must be finite, but row {row} holds a NaN or an infinity.", str(path))
    if given.ndim == 2:
        return Arrays(inputs=given, targets=targets, target_name=name, channels_last=False, as_given=given)
    inputs, channels_last = as_images(given, str(path))
    return Arrays(inputs=inputs, targets=targets, target_name=name, channels_last=channels_last, as_given=given)


def unknown_column(key: str, name: str, columns: Sequence[object], where: str) -> DataError:
    """The error for a column that is not there, with the nearest one that is."""
    names = [str(column) for column in columns]
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"the columns are {listed}."
    return DataError(f"data.{key} must be a column of the source, but there is no {name!r}; {hint}", where)


def _check_file(path: Path) -> None:
    if not path.is_file():
        there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, [*there, *NAMES], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"There is no such file.{hint}", str(path))
    if path.stat().st_size == 0:
        raise DataError("The file is empty.", str(path))


def _reading(where: str, read: Callable[[], Any]) -> Any:
    """Runs a reader of `datasets`; whatever it raises is about the data or the way there."""
    try:
        return read()
    except Exception as exc:
        # It wraps the telling error in one or two of its own.
        cause: BaseException = exc
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UnicodeDecodeError):
            raise DataError(f"The file must be UTF-8 text, but byte {cause.start} is not.", where) from exc
        raise DataError(f"It can't be read: {_reason(cause)}", where) from exc


def _reason(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(exc).__name__


class _quiet_datasets:  # noqa: N801 - used as a function
    """`datasets` without progress bars and log lines while the context lasts."""

    def __enter__(self) -> Any:
        import datasets

        self._module = datasets
        self._verbosity = datasets.logging.get_verbosity()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        datasets.disable_progress_bars()
        return datasets

    def __exit__(self, *_: object) -> None:
        self._module.logging.set_verbosity(self._verbosity)
        self._module.enable_progress_bars()
