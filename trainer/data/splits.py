"""Which rows train, validate and test. Equal for one seed on every machine: whole numbers, Python's floats and NumPy's
legacy generator, whose streams never change (NEP 19), decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from neurosweep.errors import DataError
from trainer.data.dataset import Array
from trainer.data.words import did_you_mean, quoted

SPLITS = ("train", "validation", "test")

Rows = npt.NDArray[np.int64]
Dealt = npt.NDArray[np.int64]
"""The split of each row, as its place in `SPLITS`; shape (rows,)."""

QUANTILES, QUANTILE_ROWS = 10, 10
"""A regression's rows are stratified by so many quantiles of the target, or fewer so that each has so many rows."""

_SAMPLING, _SPLITTING = 0, 1  # second half of each draw's seed


def quantiles(values: Array) -> Rows:
    """The quantile of the target that each row is in, from 0; shape (rows,)."""
    count = max(1, min(QUANTILES, len(values) // QUANTILE_ROWS))
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks * count // len(values)


def allocate(sizes: Rows, totals: Rows) -> Rows:
    """How many rows of each stratum go where: whole numbers less than 1 away from the proportional share, or exactly 1
    where that is a whole number, with exact sums.

    Args:
        sizes: Rows of each stratum, (strata,).
        totals: Rows of each part, (parts,); they add up to the sum of `sizes`.

    Returns:
        Rows of shape (strata, parts); its rows add up to `sizes`, its columns to `totals`.
    """
    exact = sizes[:, None] * totals  # in units of 1 / sum of sizes
    rows = max(1, int(sizes.sum()))
    counts, fractions = exact // rows, exact % rows
    spare, needs = sizes - counts.sum(axis=1), totals - counts.sum(axis=0)
    # Rounding up where most is needed always comes out even (Gale 1957, Ryser 1957).
    for stratum in range(len(sizes)):
        order = np.lexsort((-fractions[stratum], -needs))[: spare[stratum]]
        counts[stratum, order] += 1
        needs[order] -= 1
    return counts


def sample(strata: Rows, size: int, seed: int) -> Rows:
    """`size` rows, each stratum by its share; ascending."""
    counts = allocate(np.bincount(strata), np.array([size, len(strata) - size]))[:, 0]
    return np.sort(
        np.concatenate([rows[:count] for rows, count in zip(_shuffled(strata, seed, _SAMPLING), counts, strict=True)])
    )


def split_by_fractions(strata: Rows, fractions: tuple[float, float, float], seed: int) -> Dealt:
    """Three splits with each stratum in all of them by its share.

    Validation and test have their shares to the nearest row, train what is left, and each stratum is less than a row
    away from its share. Strata so small that a split would get none of their rows give it one all the same.

    Args:
        strata: The stratum of each row, from 0, each with 3 rows at least; (rows,).
        fractions: Shares of train, validation and test, which add up to 1.
    """
    counts = allocate(np.bincount(strata), _totals(len(strata), fractions))
    for row in counts:
        while not row.all():
            row[row.argmax()] -= 1
            row[row.argmin()] += 1
    dealt = np.empty(len(strata), np.int64)
    for rows, row in zip(_shuffled(strata, seed, _SPLITTING), counts, strict=True):
        dealt[rows] = np.repeat(np.arange(len(SPLITS)), row)
    return dealt


def split_groups(strata: Rows, groups: Rows, fractions: tuple[float, float, float], seed: int) -> Dealt:
    """Three splits that share no group, each stratum by its share as far as whole groups allow.

    The largest group goes first, those of one size in a drawn order, each to the split in which the strata come closest
    to their shares: the least sum of squared differences, each divided by the share (as chi-squared does). The last
    groups go where there is none yet.

    Args:
        groups: The group of each row, from 0; (rows,). There are three at least.
    """
    contents = _contents(strata, groups)
    order = np.random.RandomState([seed, _SPLITTING]).permutation(len(contents)).tolist()
    order.sort(key=lambda group: -sum(contents[group].values()))
    sizes = np.bincount(strata).tolist()
    shares = [[size * fraction for size in sizes] for fraction in fractions]
    counts = [[0] * len(sizes) for _ in SPLITS]
    chosen = np.empty(len(contents), np.int64)
    for done, group in enumerate(order):
        empty = [part for part in range(len(SPLITS)) if not any(counts[part])]
        may = empty if len(empty) == len(order) - done else range(len(SPLITS))
        best = min(may, key=lambda part: _cost(contents[group], counts[part], shares[part]))
        chosen[group] = best
        for stratum, count in contents[group].items():
            counts[best][stratum] += count
    return chosen[groups]


def _contents(strata: Rows, groups: Rows) -> list[dict[int, int]]:
    """How many rows of each stratum each group has."""
    contents: list[dict[int, int]] = [{} for _ in range(int(groups.max()) + 1)]
    for group, stratum in zip(groups.tolist(), strata.tolist(), strict=True):
        contents[group][stratum] = contents[group].get(stratum, 0) + 1
    return contents


def _cost(content: dict[int, int], counts: Sequence[int], shares: Sequence[float]) -> float:
    """By how much a split's sum of squared differences grows if it gets a group."""
    return sum(
        count * (2 * (counts[stratum] - shares[stratum]) + count) / shares[stratum]
        for stratum, count in content.items()
    )


def split_by_column(values: Sequence[str | None], name: str, where: str) -> Dealt:
    """The splits that a column says.

    Raises:
        DataError: It says something else than train, validation or test, or one of them nowhere.
    """
    rule = f"the split column {quoted(name)} must say train, validation or test in every row"
    strange = next((row for row, value in enumerate(values) if value not in SPLITS), None)
    if strange is not None:
        value = values[strange]
        said = f", but row {strange + 1} " + ("has none" if value is None else f"says {quoted(value)}")
        raise DataError(rule + said + (did_you_mean(value, SPLITS, cutoff=0.4) if value else ""), where)
    dealt = np.array([SPLITS.index(str(value)) for value in values], np.int64)
    empty = [part for place, part in enumerate(SPLITS) if not (dealt == place).any()]
    if empty:
        raise DataError(f"the split column {quoted(name)} must give rows to each split, but none to {empty[0]}", where)
    return dealt


def split_hash(parts: Sequence[Rows]) -> str:
    """SHA-256, in hexadecimal, of the row ids: for train, validation and test in turn the split's name, a zero byte and
    the ascending ids as little-endian 64-bit integers."""
    digest = hashlib.sha256()
    for name, rows in zip(SPLITS, parts, strict=True):
        digest.update(name.encode() + b"\0")
        digest.update(np.sort(rows).astype("<i8").tobytes())
    return digest.hexdigest()


def _totals(rows: int, fractions: tuple[float, float, float]) -> Rows:
    validation = int(rows * fractions[1] + 0.5)
    test = min(int(rows * fractions[2] + 0.5), rows - validation)
    return np.array([rows - validation - test, validation, test])


def _shuffled(strata: Rows, seed: int, draw: int) -> list[Rows]:
    """The rows of each stratum in a drawn order."""
    generator = np.random.RandomState([seed, draw])
    order = np.argsort(strata, kind="stable")
    return [generator.permutation(rows) for rows in np.split(order, np.cumsum(np.bincount(strata))[:-1])]
