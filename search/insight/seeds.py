"""Seed noise: which of the best trials differ at all, once each was trained from several other seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats

from search.insight.findings import Contender, ExtraRun, Level, Probe, SeedNoise
from search.leaders import leaders
from storage.records import TrialRecord

ALPHA = 0.04
"""Of the test for ties. At 0.05 five runs each give up to 5.2 % of false differences where errors are counted on few
rows; at this at most 5 % (docs/method.md)."""


def seed_noise(trials: Sequence[TrialRecord], extra_runs: Sequence[ExtraRun], *, winner: int) -> SeedNoise | None:
    """What the runs from other seeds make of the trials that had some.

    A contender is tied with the one of the best mean unless Games and Howell's test parts them (1976, Journal of
    Educational Statistics 1, p. 113): Tukey's studentized range, so that it holds for any pair among all of them,
    whichever came out best, with Welch's degrees of freedom, as networks vary differently from seed to seed. It says
    what other seeds would do on the same validation rows; other rows vary as well.

    The luck is the winner's mean over fresh seeds less what it had in the search, with Student's interval for that
    mean.

    Returns:
        The contenders in the order of the search; None unless the winner has two runs at least.
    """
    found = []
    for trial in leaders(trials):
        values = _values(trial.number, extra_runs)
        if len(values) >= 2:
            found.append((trial, values))
    if not any(trial.number == winner for trial, _ in found):
        return None
    means = [statistics.fmean(values) for _, values in found]
    best = min(range(len(found)), key=lambda index: (means[index], found[index][0].weights))
    contenders = tuple(
        Contender(
            trial=trial.number,
            validation=float(trial.validation or 0.0),
            values=values,
            mean=mean,
            std=statistics.stdev(values),
            weights=trial.weights,
            tied=not differ(found[best][1], values, len(found)),
        )
        for (trial, values), mean in zip(found, means, strict=True)
    )
    tied = [each for each in contenders if each.tied]
    return SeedNoise(
        contenders=contenders,
        std=_pooled(contenders),
        luck=_luck(next(each for each in contenders if each.trial == winner)),
        simplest=min(tied, key=lambda each: (each.weights, each.mean)).trial,
        best=contenders[best].trial,
    )


def differ(one: Sequence[float], other: Sequence[float], groups: int) -> bool:
    """Whether two groups of runs, of so many that are compared, have different means (Games & Howell 1976)."""
    apart = abs(statistics.fmean(one) - statistics.fmean(other))
    shares = [statistics.variance(values) / len(values) for values in (one, other)]
    if sum(shares) == 0:
        return apart > 0  # no seed makes a difference to either
    if groups < 2 or apart == 0:
        return False
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (one, other), strict=True)
    )
    return bool(stats.studentized_range.sf(apart / math.sqrt(sum(shares) / 2), groups, freedom) < ALPHA)


def _values(trial: int, extra_runs: Sequence[ExtraRun]) -> tuple[float, ...]:
    runs = [run for run in extra_runs if run.probe is Probe.SEED and run.trial == trial and run.validation is not None]
    runs.sort(key=lambda run: run.amount)
    return tuple(run.validation for run in runs if run.validation is not None and math.isfinite(run.validation))


def _pooled(contenders: Sequence[Contender]) -> float:
    """One standard deviation for all, each by its degrees of freedom."""
    freedom = sum(len(each.values) - 1 for each in contenders)
    return math.sqrt(sum((len(each.values) - 1) * each.std**2 for each in contenders) / freedom)


def _luck(winner: Contender) -> Level:
    runs, value = len(winner.values), winner.mean - winner.validation
    half = float(stats.t.ppf(0.975, runs - 1)) * winner.std / math.sqrt(runs)
    return Level(value=value, low=value - half, high=value + half)
