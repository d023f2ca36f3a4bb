"""Whether trials do better and better towards an end of a range: complete and stopped ones together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from search.dimensions import Range
from search.insight.moves import place, width
from search.parameters import largest
from storage.records import TrialRecord, TrialState

LEAST = 10
"""Trials under which a correlation among them says nothing."""

SURE = 0.05
"""Not strict, as several numbers are asked: what it moves is widened, and the best stay in it."""
OUTER = 2 / 3
"""The best quarter of the trials must lie past this share of the range, by their median."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """
    Attributes:
        up: Whether it is towards the upper end.
        values: Those of the best quarter of the trials.
    """

    up: bool
    why: str
    values: tuple[float, ...]


def usable(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that have a value, the best first, as the sampler ranks them: complete ones by their metric, then
    those that were stopped, by how far they came and by their metric there."""
    known = [trial for trial in trials if trial.validation is not None and math.isfinite(trial.validation)]
    complete = [trial for trial in known if trial.state is TrialState.COMPLETE]
    stopped = [trial for trial in known if trial.state is TrialState.PRUNED]
    complete.sort(key=lambda trial: (trial.validation, trial.number))
    stopped.sort(key=lambda trial: (-trial.epochs, trial.validation, trial.number))
    return [*complete, *stopped]


def trend(key: str, dimension: Range, ranked: Sequence[TrialRecord]) -> Trend | None:
    """A rank correlation (Spearman's) of a number with how well the trials did, where that is sure and the best lie in
    the outer third of the range. Of a number that each layer has, the largest counts.

    Args:
        ranked: As `usable` gives them.
    """
    values = [largest(trial, key) for trial in ranked]
    known = [value for value in values if value is not None and dimension.low <= value <= dimension.high]
    if len(known) < LEAST or len(set(known)) < 2:
        return None
    tied = stats.spearmanr(known, range(len(known)))
    up = bool(tied.statistic < 0)
    best = known[: max(3, len(known) // 4)]
    middle = (float(np.median([place(dimension, value) for value in best])) - place(dimension, dimension.low)) / width(
        dimension
    )
    if not tied.pvalue < SURE or (middle if up else 1 - middle) < OUTER:
        return None
    return Trend(
        up=up,
        why=f"the {'larger' if up else 'smaller'} it was, the better the trials did (rank correlation "
        f"{abs(tied.statistic):.2f} over {len(known)} trials)",
        values=tuple(best),
    )
