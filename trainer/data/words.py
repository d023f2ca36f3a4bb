"""How the messages of this room speak of names and rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from neurosweep.errors import DataError

SHOWN = 5
"""A message names at most this many rows, columns or classes."""


def did_you_mean(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'species'?`` for a near miss, else an empty text."""
    lowered = {name.lower(): name for name in words}
    near = get_close_matches(word.strip().lower(), lowered, n=1, cutoff=cutoff)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""


def listed(names: Sequence[object]) -> str:
    """``a, b, c`` with an end where there are many; texts in quotes."""
    shown = ", ".join(quoted(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


def quoted(value: object) -> str:
    """A value as a message shows it: a text in quotes and cut at 60 characters."""
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text) if isinstance(value, str) else text


def row_numbers(rows: Iterable[int]) -> str:
    """``row 3`` or ``rows 3, 8, 9``: row ids, which begin with 0, as people count."""
    numbers = [int(row) + 1 for row in rows]
    return f"row{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


@contextmanager
def about(key: str) -> Iterator[None]:
    """Errors of the data that come out of this block are about this key of the study file."""
    try:
        yield
    except DataError as error:
        error.key = error.key or key
        raise


def unknown_column(role: str, name: str, names: Sequence[str], where: str) -> DataError:
    """The error of a column that is not there."""
    message = f"{role} must be a column of the data, but there is no {quoted(name)}"
    hint = did_you_mean(name, names) or f": there are {listed(list(names))}"
    return DataError(message + hint, where)
