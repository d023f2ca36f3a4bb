"""What the trials say of the search space: borders that the best trials press against, and where good values lie. What
matters, what matters together and what never works is in `importances` and `barren`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from search.dimensions import Choice, Fixed, Range
from search.insight.barren import barren_regions
from search.insight.findings import Border, SpaceFindings
from search.insight.importances import importances, interactions
from search.leaders import leaders
from search.parameters import dimension_of, is_number, largest, numbers_of
from search.spec import StudySpec
from storage.records import TrialRecord

BEST = 10
LEAST = 5
"""Fewer good trials than this say nothing of a border."""

NEAR = 0.05
"""Within this share of a range, on its own scale, a value is at the end."""

SURE = 0.01
"""A border is told where as many of the best would be there by chance less often than this."""

LOWEST = {
    "layers": 1,
    "neurons": 1,
    "weight_decay": 0,
    "dropout": 0,
    "momentum": 0,
    "batch_size": 1,
    "conv_layers": 1,
    "filters": 1,
    "filter_size": 1,
    "stride": 1,
}
"""Lower ends that no study file can go under; `learning_rate` has none."""

HIGHEST = {"dropout": 0.95, "momentum": 0.995}
"""Upper ends beyond which nothing trains, or nothing is allowed."""


def space_findings(spec: StudySpec, trials: Sequence[TrialRecord], *, chance: float, seed: int) -> SpaceFindings:
    """All that is found in the space; a few seconds at most with 10,000 trials.

    Args:
        chance: The metric of the best constant guess.
    """
    order = leaders(trials)
    best = order[: min(BEST, len(order) // 2)]
    return SpaceFindings(
        borders=borders(spec, best),
        importances=importances(spec, trials, seed),
        interactions=interactions(spec, trials, seed),
        barren=barren_regions(spec, trials, chance=chance),
        good=good_values(spec, best),
    )


def borders(spec: StudySpec, best: Sequence[TrialRecord]) -> tuple[Border, ...]:
    """Parameters of which most of the best trials stand at an end, on the range's own scale (log where it is log).

    Where a parameter has a value for each layer, the largest counts: it is at the upper end where the widest layer is,
    at the lower end where all are. A list of numbers has ends as well. Half of the best must be there, and more than
    uniform draws would put there (a binomial test at `SURE`).
    """
    found = []
    for key in type(spec.space).model_fields:
        dimension = dimension_of(spec, key)
        ends = _ends(dimension)
        values = [largest(trial, key) for trial in best]
        known = [value for value in values if value is not None]
        if ends is None or len(known) < LEAST:
            continue
        places = [_place(dimension, ends, value) for value in known]
        for end, near in (
            ("lower", sum(place <= NEAR for place in places)),
            ("upper", sum(place >= 1 - NEAR for place in places)),
        ):
            usual = stats.binomtest(near, len(known), _usual_share(dimension), alternative="greater").pvalue
            if 2 * near < len(known) or usual >= SURE:
                continue
            bound = ends[0] if end == "lower" else ends[1]
            found.append(
                Border(key=key, end=end, near=near, of=len(known), bound=bound, movable=_movable(key, end, bound))
            )
    return tuple(sorted(found, key=lambda each: -each.near / each.of))


def good_values(spec: StudySpec, best: Sequence[TrialRecord]) -> dict[str, tuple[float, float]]:
    """For each searched number, the 10 % and 90 % quantiles among the best trials, all layers together."""
    found = {}
    for key in type(spec.space).model_fields:
        if _ends(dimension_of(spec, key)) is None:
            continue
        values = [value for trial in best for value in numbers_of(trial, key)]
        if len(values) >= LEAST:
            low, high = np.quantile(np.asarray(values), [0.1, 0.9], method="inverted_cdf")
            found[key] = (float(low), float(high))
    return found


def _ends(dimension: Fixed | Choice | Range) -> tuple[float, float] | None:
    if isinstance(dimension, Range):
        return float(dimension.low), float(dimension.high)
    if isinstance(dimension, Choice) and all(is_number(value) for value in dimension.values):
        numbers = [float(value) for value in dimension.values]
        return min(numbers), max(numbers)
    return None


def _place(dimension: Fixed | Choice | Range, ends: tuple[float, float], value: float) -> float:
    """Where a value lies between the ends, 0 to 1."""
    low, high = ends
    if isinstance(dimension, Choice):
        return 0.0 if value <= low else 1.0 if value >= high else 0.5
    if isinstance(dimension, Range) and dimension.log and value > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _usual_share(dimension: Fixed | Choice | Range) -> float:
    """How much of the prior is at one end."""
    if isinstance(dimension, Choice):
        return 1 / len(dimension.values)
    if isinstance(dimension, Range) and isinstance(dimension.low, int) and isinstance(dimension.high, int):
        low, high = dimension.low, dimension.high
        if dimension.log:
            # A whole number stands for the half on either side of it, on the logarithmic scale.
            return max(NEAR, math.log((low + 0.5) / (low - 0.5)) / math.log((high + 0.5) / (low - 0.5)))
        return max(NEAR, 1 / ((high - low) // int(dimension.step or 1) + 1))
    if isinstance(dimension, Range) and dimension.step is not None:
        return max(NEAR, 1 / (round((dimension.high - dimension.low) / dimension.step) + 1))
    return NEAR


def _movable(key: str, end: str, bound: float) -> bool:
    if end == "lower":
        return key not in LOWEST or bound > LOWEST[key]
    return key not in HIGHEST or bound < HIGHEST[key]
