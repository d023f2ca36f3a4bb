"""Three independent splits: stratified, group-aware, seeded, and the same on every machine. scikit-learn cuts them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neurosweep.errors import DataError
from trainer.data.dataset import Array

Rows = npt.NDArray[np.int64]

QUANTILES = 10
"""A regression target is stratified by this many quantiles, or fewer where there are few rows."""

FOLDS = 20
"""Groups are dealt into folds of this number, which are then joined to splits: shares come in steps of 5 %."""


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """Row ids of each split, ascending."""

    train: Rows
    validation: Rows
    test: Rows

    @property
    def hash(self) -> str:
        """SHA-256 over each split's name and its row ids as little-endian 64-bit numbers, in hexadecimal."""
        digest = hashlib.sha256()
        for name in ("train", "validation", "test"):
            digest.update(name.encode())
            digest.update(getattr(self, name).astype("<i8").tobytes())
        return digest.hexdigest()


def sample(rows: Rows, strata: Array, most: int, seed: int) -> Rows:
    """At most `most` of the rows, in the strata's proportions."""
    from sklearn.model_selection import train_test_split

    if len(rows) <= most:
        return rows
    try:
        kept, _ = train_test_split(rows, train_size=most, stratify=strata, random_state=seed)
    except ValueError as exc:
        raise DataError(
            f"data.max_rows must leave at least one row of each class, but {most} does not: raise it."
        ) from exc
    return np.sort(kept)


def split_by_fractions(
    rows: Rows, strata: Array, fractions: tuple[float, float, float], groups: Array | None, seed: int
) -> SplitRows:
    """Cuts rows into train, validation and test.

    Without groups the validation and test splits have their share of the rows, rounded, and train gets the rest. With
    groups, whole groups are dealt out, and the shares are as near as they allow.

    Args:
        strata: Class or quantile of each row.
        groups: Rows that share a value stay in one split.

    Raises:
        DataError: There are too few rows or groups.
    """
    if groups is not None:
        return _split_groups(rows, strata, fractions, groups, seed)
    from sklearn.model_selection import train_test_split

    sizes = [round(fraction * len(rows)) for fraction in fractions[1:]]
    if min(sizes) < 1 or sum(sizes) >= len(rows):
        raise DataError(f"There must be a row for each split, but {len(rows)} rows are too few for {fractions}.")
    positions = np.arange(len(rows))
    try:
        rest, test = train_test_split(positions, test_size=sizes[1], stratify=strata, random_state=seed)
        train, validation = train_test_split(rest, test_size=sizes[0], stratify=strata[rest], random_state=seed + 1)
    except ValueError as exc:
        raise DataError(
            f"Each split must have room for every class, but {len(np.unique(strata))} classes do not fit into splits "
            f"of {sizes[0]} and {sizes[1]} rows: use more rows, or larger shares in data.split."
        ) from exc
    return SplitRows(train=np.sort(rows[train]), validation=np.sort(rows[validation]), test=np.sort(rows[test]))


def _split_groups(
    rows: Rows, strata: Array, fractions: tuple[float, float, float], groups: Array, seed: int
) -> SplitRows:
    from sklearn.model_selection import StratifiedGroupKFold

    # scikit-learn sorts groups; numbers of their first appearance give every kind of value an order.
    _, numbers = np.unique(groups.astype(str), return_inverse=True)
    folds = min(FOLDS, int(numbers.max()) + 1, int(np.bincount(np.unique(strata, return_inverse=True)[1]).max()))
    if folds < 3:
        raise DataError(f"There must be at least three groups, one for each split, but there are {folds}.")
    dealt = np.empty(len(rows), dtype=np.int64)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, chosen) in enumerate(dealer.split(rows, strata, numbers)):
        dealt[chosen] = fold
    test_folds = max(1, round(fractions[2] * folds))
    validation_folds = max(1, min(round(fractions[1] * folds), folds - test_folds - 1))
    test = dealt < test_folds
    validation = ~test & (dealt < test_folds + validation_folds)
    return SplitRows(train=rows[~test & ~validation], validation=rows[validation], test=rows[test])


def split_by_column(rows: Rows, words: Array, column: str) -> SplitRows:
    """Splits as a column says.

    Raises:
        DataError: It holds another word than train, validation and test, or one of them is missing.
    """
    spelled = np.asarray([str(word) for word in words])
    for word in ("train", "validation", "test"):
        if not (spelled == word).any():
            found = ", ".join(repr(str(value)) for value in np.unique(spelled)[:6])
            raise DataError(f"Column {column!r} must say train, validation or test, but holds {found}.")
    odd = ~np.isin(spelled, ("train", "validation", "test"))
    if odd.any():
        raise DataError(
            f"Column {column!r} must say train, validation or test, but row {int(rows[odd][0])} says "
            f"{spelled[odd][0]!r}."
        )
    return SplitRows(**{word: rows[spelled == word] for word in ("train", "validation", "test")})


def quantiles(targets: Array) -> Array:
    """The quantile of each value, by rank, so that equal shares come out however the values are spread."""
    ranks = np.argsort(np.argsort(targets, kind="stable"), kind="stable")
    count = max(1, min(QUANTILES, len(targets) // 10))
    return ranks * count // len(targets)


def check_classes(splits: SplitRows, targets: Array, names: Sequence[object]) -> None:
    """Raises `DataError` where a class is missing from a split.

    Args:
        targets: Class index of each row id.
    """
    counts = np.bincount(targets[np.concatenate([splits.train, splits.validation, splits.test])], minlength=len(names))
    for name in ("train", "validation", "test"):
        absent = np.setdiff1d(np.flatnonzero(counts), targets[getattr(splits, name)])
        if len(absent):
            which = absent[np.argmin(counts[absent])]
            raise DataError(
                f"Every class must be in all three splits, but {names[which]!r} has {counts[which]} rows and none in "
                f"{name}: add rows, merge the class with another, or leave it out."
            )
