"""When more trials are not worth it: what they are expected to gain, and the noise that this is held against.

Optuna's terminator (Makarova et al. 2022, AutoML-Conf, "Automatic Termination for Hyperparameter Optimization") asks
the same question of a Gaussian process over the settings; here the values alone are asked, which takes microseconds,
needs no model of a conditional space, and gives the same answer for the same trials. Smaller values are better.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from storage.records import ExtraRun, Probe
from trainer.work import Metric

LEAST = 20
"""Complete trials that anything can be told from."""

STANDS = 0.8
"""That there is nothing to gain must have been so when there were this share of the trials, too: one unlucky stretch
says little. Of simulated searches, this ends a quarter to a half as many too early (docs/results.md)."""


def no_gain(values: Sequence[float], left: float, noise: float) -> bool:
    """Whether so many more complete trials are expected to better the best one by no more than the noise.

    Args:
        values: Metrics of the complete trials, in the order in which they were proposed.
        left: Complete trials that are still to come.
    """
    before = int(STANDS * len(values))
    return before >= LEAST and all(
        expected_gain(values[:count], left + len(values) - count) <= noise for count in (before, len(values))
    )


def expected_gain(values: Sequence[float], left: float) -> float:
    """By how much the best value is expected to fall with so many more trials.

    Records come by ratio, not by count: what matters is how often the trials double, and where values have a lower end,
    a doubling gains no more than the one before it. So the gain of a doubling is taken from the past, as the largest of

    - what the last half of the trials has gained,
    - what the last three quarters have, which are two doublings, divided by two,
    - what the newer half of the trials would have gained on average over all orders in which they could have come: the
      least of all of them against the mean least of half of them (Tang et al. 2020, ACL, "Showing Your Work Doesn't
      Always Work", eq. 2). The first two depend on one lucky trial; this one does not.
    """
    count = len(values)
    best = min(values)
    last_half = min(values[: count // 2]) - best
    two_doublings = min(values[: count // 4]) - best
    doublings = math.log2(1 + left / count)
    newer = np.sort(np.asarray(values[-max(LEAST, count // 2) :], np.float64))
    by_chance = (mean_least(newer, len(newer) // 2) - float(newer[0])) * math.log2(1 + left / len(newer))
    # No metric is negative.
    return min(best, max(max(last_half, two_doublings / 2) * doublings, by_chance))


def mean_least(ascending: np.typing.NDArray[np.float64], draws: int) -> float:
    """The mean of the least of so many values, over all ways of drawing them without replacement from sorted ones."""
    count = len(ascending)
    # Of all draws, the share whose least is the n-th is C(count - 1 - n, draws - 1) / C(count, draws).
    later = np.arange(1, count)
    ratios = np.maximum(count - later - draws + 1, 0) / (count - later)
    shares = draws / count * np.concatenate(([1.0], np.cumprod(ratios)))
    return float(shares @ ascending)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much of a difference between two trials' metrics means nothing.

    Attributes:
        rows: Of the validation split.
        seeds: The standard deviation that other seeds alone make, where it is known.
    """

    metric: Metric
    rows: int
    seeds: float = 0.0

    def at(self, value: float) -> float:
        """The standard deviation of a metric about such a value: for the split's finite size, and between seeds.

        Of the split's rows, only their mean is known here:

        - error, balanced_error: the binomial's, with one more right and one more wrong answer (Laplace), so that no
          errors in a few rows don't look like certainty.
        - log_loss: rows' losses that spread as widely as their mean, as an exponential distribution's do.
        - mse, mae: normal residuals, whose squares spread sqrt(2) times as widely as their mean, and whose absolute
          values sqrt(pi / 2 - 1) times.

        Where classes are unequal, or residuals have heavier tails, the noise is larger in truth, and the search goes on
        for longer than it need.
        """
        match self.metric:
            case Metric.ERROR | Metric.BALANCED_ERROR:
                share = (min(value, 1.0) * self.rows + 1) / (self.rows + 2)
                spread = math.sqrt(share * (1 - share))
            case Metric.LOG_LOSS:
                spread = value
            case Metric.MSE:
                spread = value * math.sqrt(2)
            case Metric.MAE:
                spread = value * math.sqrt(math.pi / 2 - 1)
        return math.hypot(spread / math.sqrt(self.rows), self.seeds)


def seeds_noise(runs: Iterable[ExtraRun]) -> float:
    """The standard deviation of the metric between seeds, pooled over the trials that were trained again from several;
    0 where none was."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        if run.probe is Probe.SEED and run.validation is not None:
            values[run.trial].append(run.validation)
    freedom = sum(len(own) - 1 for own in values.values())
    squares = sum(float(np.var(own)) * len(own) for own in values.values())
    return math.sqrt(squares / freedom) if freedom else 0.0
