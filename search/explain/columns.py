"""What a network makes of each column of a table: how much it needs the column, and how its answer moves with it.

Both are about raw columns: all features that a column gives are changed together. Both ask the network about rows that
may not exist, such as a newborn of two metres; columns that go together share what they are worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.insight.levels import row_losses
from trainer.data.columns import Column, ColumnKind
from trainer.data.dataset import Preprocessing
from trainer.data.preprocessing import encode_table, feature_slices
from trainer.work import Metric

Array = npt.NDArray[Any]

Ask = Callable[[Array], Array]
"""From encoded rows, (rows, features), to the network's answers: probabilities of shape (rows, classes), or values in
the target's units of shape (rows,)."""

MOST_REPEATS, FEWEST_REPEATS = 20, 3
MOST_ASKED = 2_000_000
"""Rows that the network is asked about for the importances of all columns; of many columns each has fewer repeats."""

MOST_NUMBERS = 20_000_000
"""Inputs that the network is asked about at a time."""

DRAWS = 1000
"""Of the bootstrap."""

POINTS = 24
"""Values of a column at which the answers are taken."""

ENDS = (0.02, 0.98)
"""Quantiles of the train split between which these values lie: beyond them the network knows next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What the metric would lose without a column: how much larger it is when the column is shuffled.

    Attributes:
        low: Of a 95 % interval over the rows, as is `high`.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """How the answers move with one column while all others stay.

    Attributes:
        values: Raw ones, ascending for numbers, the most frequent first for categories; None for a missing one comes
            last.
        mean: Over the rows, of shape (values, answers).
        lines: Of some rows alone, of shape (rows, values, answers).
    """

    values: tuple[Any, ...]
    mean: Array
    lines: Array


def permutation_importances(
    ask: Ask, metric: Metric, inputs: Array, truth: Array, preprocessing: Preprocessing, seed: int
) -> list[Importance]:
    """The permutation importance of each raw column (Breiman 2001, Machine Learning 45, sec. 10; Fisher, Rudin &
    Dominici 2019, JMLR 20 (177), for any model): the metric's mean increase when the column's values are dealt anew to
    the rows.

    Args:
        inputs: Encoded rows, (rows, features).
        truth: Class indices or targets in their units, (rows,).
    """
    random, rows = np.random.default_rng(seed), len(inputs)
    slices = feature_slices(preprocessing)
    affordable = min(MOST_ASKED // (rows * len(slices)), MOST_NUMBERS // inputs.size)
    repeats = int(np.clip(affordable, FEWEST_REPEATS, MOST_REPEATS))
    base = row_losses(metric, truth, ask(inputs))
    groups = np.unique(truth, return_inverse=True)[1] if metric is Metric.BALANCED_ERROR else np.zeros(rows, np.int64)
    effects = np.empty((rows, len(slices)))
    for index, place in enumerate(slices):
        donors = np.array([random.permutation(rows) for _ in range(repeats)])
        shuffled = np.tile(inputs, (repeats, 1))
        shuffled[:, place] = inputs[donors.ravel(), place]
        losses = row_losses(metric, np.tile(truth, repeats), ask(shuffled)).reshape(repeats, rows)
        effects[:, index] = _effects(losses - base, donors, groups)
    draws = random.multinomial(rows, np.full(rows, 1 / rows), size=DRAWS) @ effects / rows
    figures = np.concatenate([effects.mean(axis=0, keepdims=True), np.percentile(draws, [2.5, 97.5], axis=0)])
    return [Importance(value=value, low=low, high=high) for value, low, high in figures.T.tolist()]


def _effects(increases: Array, donors: Array, groups: Array) -> Array:
    """What each row adds to an importance, (rows,): their mean is the importance, and their spread its uncertainty, by
    the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13).

    A row counts twice: by what it loses with others' values, and by what others lose with its own, as in the variance
    of a U-statistic (Hoeffding 1948, Annals of Mathematical Statistics 19, p. 293).

    Args:
        increases: Of each row's loss, (repeats, rows).
        donors: Whose value the row had, (repeats, rows).
        groups: The metric is the mean over these groups' means, (rows,).
    """
    rows, counts = len(groups), np.bincount(groups)
    weights = rows / (len(counts) * counts[groups])
    received = increases.mean(axis=0)
    means = (np.bincount(groups, received) / counts)[groups]
    donated = np.bincount(donors.ravel(), (increases * weights).ravel(), minlength=rows) / len(increases)
    effects: Array = (weights * received).mean() + weights * (received - means) + donated - donated.mean()
    return effects


def dependence(
    ask: Ask, index: int, values: Sequence[Any], inputs: Array, preprocessing: Preprocessing, lines: int
) -> Dependence:
    """The partial dependence of the answers on a column (Friedman 2001, Annals of Statistics 29 (5), sec. 8.2), and
    the individual lines behind that mean (Goldstein et al. 2015, JCGS 24 (1), p. 44).

    Args:
        index: Of the column.
        values: Raw ones, as `grid` gives them.
        inputs: Encoded rows over which the mean goes, (rows, features).
        lines: How many rows keep a line of their own: the first ones.
    """
    place = feature_slices(preprocessing)[index]
    changed = np.repeat(inputs[None], len(values), axis=0)
    changed[:, :, place] = _encoded(preprocessing.columns[index], values)[:, None]
    answers = ask(changed.reshape(-1, inputs.shape[1])).reshape(len(values), len(inputs), -1)
    return Dependence(values=tuple(values), mean=answers.mean(axis=1), lines=answers[:, :lines].transpose(1, 0, 2))


def _encoded(record: dict[str, Any], values: Sequence[Any]) -> Array:
    """Raw values of one column as the network's inputs, (values, features)."""
    if record["kind"] == "number":
        known = np.array([np.nan if value is None else value for value in values], np.float64)
        column = Column(name=record["name"], kind=ColumnKind.REAL, values=known)
    else:
        column = Column(name=record["name"], kind=ColumnKind.TEXT, values=np.array(values, dtype=object))
    alone = Preprocessing(kind="table", task="", columns=(record,))
    return encode_table(alone, [column], np.arange(len(values)), record["name"])


def grid(column: Column, rows: Array) -> list[Any]:
    """The values of a column at which its dependence is taken: at most `POINTS`, and None where some are missing.

    Args:
        rows: Those of the train split.
    """
    missing = column.missing[rows]
    known = column.values[rows][~missing]
    if not column.is_number:
        found: list[Any] = [value for value, _ in Counter(sorted(known.tolist())).most_common(POINTS)]
    elif len(np.unique(known)) <= POINTS:
        found = np.unique(known).tolist()
    else:
        low, high = np.quantile(known, ENDS).tolist()
        even = np.linspace(low, high, POINTS)
        found = np.unique(np.round(even) if column.kind is ColumnKind.WHOLE else even).tolist()
    return [*found, None] if missing.any() else found
