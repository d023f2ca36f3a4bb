"""Tables in files, read by Hugging Face `datasets`, whose errors become ones that name the line."""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurosweep.errors import DataError
from trainer.data.words import listed, quoted

NO_ROWS = "there must be at least one row, but there is none"
BLOCK = 1 << 20
"""Bytes read at a time where a whole file is looked through."""

JSON_BLOCK = 2**31 - 1
"""The largest block that pyarrow reads at once; the types of a file that fits are told from all of it."""

TABLES = (".csv", ".parquet", ".jsonl")


def read_table(path: Path) -> Any:
    """A ``.csv``, ``.parquet`` or ``.jsonl`` file as a `datasets.Dataset` that is in memory; no cache stays behind.

    Every column of a CSV file is of texts, an empty one where a value is missing.

    Raises:
        DataError: The file can't be read; `where` has the line where one is to blame.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        known = ", ".join((*TABLES, ".npz"))
        raise DataError(f"data is a {known} file or a folder of images, but this ends with {quoted(suffix)}", str(path))
    try:
        if path.stat().st_size == 0:
            raise DataError("the file is empty", str(path))
        if suffix == ".csv":
            return _read_csv(path)
        return _read_jsonl(path) if suffix == ".jsonl" else _read_parquet(path)
    except OSError as error:
        raise DataError(f"the file can't be read: {error.strerror or error}", str(path)) from None


def _read_csv(path: Path) -> Any:
    import datasets

    _check_utf8(path)
    names = _header(path)
    features = datasets.Features({name: datasets.Value("string") for name in names})
    # Types told by pandas chunk by chunk differ from chunk to chunk: texts don't.
    try:
        return _read("from_csv", path, features=features, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except _ReadError as error:
        extra = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error.reason)
        if extra:
            expected, line, saw = extra.groups()
            message = f"every line must have the header's {expected} values, but this one has {saw}"
            raise DataError(f"{message}: put quotes around a text with a comma", f"{path}:{line}") from None
        if "EOF inside string" in error.reason:
            raise DataError("a quotation mark that opens is never closed: close it, or double it", str(path)) from None
        raise DataError(f"the file can't be read as CSV: {error.reason}", str(path)) from None


def _read_jsonl(path: Path) -> Any:
    _check_utf8(path)
    block = min(path.stat().st_size + 1, JSON_BLOCK)
    try:
        return _read("from_json", path, chunksize=block, parse_agent_traces=False)
    except _ReadError as error:
        _check_lines(path)
        raise DataError(f"the file can't be read as JSON lines: {error.reason}", str(path)) from None


def _read_parquet(path: Path) -> Any:
    try:
        dataset = _read("from_parquet", path)
    except _ReadError as error:
        raise DataError(f"the file can't be read as Parquet: {error.reason}", str(path)) from None
    # pandas stores its row numbers or names as columns of this name.
    return dataset.remove_columns([name for name in dataset.column_names if name.startswith("__index_level_")])


class _ReadError(Exception):
    """`datasets` could not read a file; the reason is the innermost error's first line."""

    def __init__(self, error: BaseException) -> None:
        while error.__cause__ is not None:
            error = error.__cause__
        self.reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        super().__init__(self.reason)


def _read(method: str, path: Path, **options: Any) -> Any:
    """What `datasets.Dataset.from_csv` or one of its like reads.

    It goes through a link with a plain name, because `datasets` takes ``*``, ``[`` and ``::`` in a path for patterns.
    """
    import datasets

    with quiet(), tempfile.TemporaryDirectory(prefix="neurosweep-") as scratch:
        link = Path(scratch, "data" + path.suffix.lower())
        link.symlink_to(path.absolute())
        try:
            reader = getattr(datasets.Dataset, method)
            return reader(str(link), cache_dir=str(Path(scratch, "cache")), keep_in_memory=True, **options)
        except OSError:
            raise
        except Exception as error:  # whatever pandas, pyarrow and datasets make of a damaged file
            raise _ReadError(error) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what `datasets` and the hub's client say of their work off the screen."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not hidden:
            datasets.enable_progress_bars()


def _check_utf8(path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        while True:
            block, pending = file.read(BLOCK), len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += block.count(b"\n", 0, max(error.start - pending, 0))
                message = f"the file must be UTF-8 text, but has the byte 0x{error.object[error.start]:02x} here"
                raise DataError(message + ": save it as UTF-8", f"{path}:{line}") from None
            line += block.count(b"\n")
            if not block:
                return


def _header(path: Path) -> list[str]:
    """The names in a CSV file's first line.

    Raises:
        DataError: There is no row below it, or the names are not what a table's should be.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = (record for record in csv.reader(file) if record)
        try:
            names, first = next(records, None), next(records, None)
        except csv.Error as error:
            raise DataError(f"the file can't be read as CSV: {error}", str(path)) from None
    if names is None:
        raise DataError("the file is empty", str(path))
    where = f"{path}:1"
    twice = [name for name, count in Counter(names).items() if count > 1]
    nameless = [place for place, name in enumerate(names, 1) if not name.strip()]
    if nameless:
        raise DataError(f"every column must have a name, but column {nameless[0]} has none: name or delete it", where)
    if twice:
        raise DataError(f"every column must have a name of its own, but {listed(twice)} is there twice", where)
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise DataError(f"values must be separated by commas, but here they seem to be by {other!r}", where)
    if first is None:
        raise DataError(f"{NO_ROWS} below the header", str(path))
    if len(first) > len(names):  # pandas would take the first column for row names
        message = f"every line must have the header's {len(names)} values, but the first row has {len(first)}"
        raise DataError(message, str(path))
    return names


def _check_lines(path: Path) -> None:
    """Raises `DataError` for the first line that is not a JSON object."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or "it is nested too deeply"
                raise DataError(f"this line is not JSON: {reason}", f"{path}:{number}") from None
            if not isinstance(value, dict):
                message = 'each line must be one JSON object such as {"a": 1}, but this is ' + quoted(line.strip())
                raise DataError(message, f"{path}:{number}")
