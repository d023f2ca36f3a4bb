"""The levels that a diagnosis compares: chance, simple models, a person, and the winner on its three splits; each with
a 95 % interval that fits the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from search.insight.findings import Level, Levels
from trainer.data.dataset import Dataset, Split, Task
from trainer.work import Metric, TestResult

Numbers = npt.NDArray[Any]

SHARES = (Metric.ERROR, Metric.BALANCED_ERROR)
"""Metrics that are shares of rows, or means of such."""

BOOTSTRAP_DRAWS = 2000
MOST_BOOTSTRAP_ROWS = 10_000
"""With more rows the mean is as good as normal, and a bootstrap would only take long."""

Z = float(stats.norm.ppf(0.975))


def measure(metric: Metric, truth: Numbers, outputs: Numbers) -> float:
    """The metric of predictions.

    Args:
        truth: Class indices of shape (rows,), or values in the target's units.
        outputs: Probabilities of shape (rows, classes), or values of shape (rows,) in the target's units.
    """
    losses = row_losses(metric, truth, outputs)
    if metric is Metric.BALANCED_ERROR:
        return float(np.mean([losses[truth == label].mean() for label in np.unique(truth)]))
    return float(losses.mean())


def row_losses(metric: Metric, truth: Numbers, outputs: Numbers) -> npt.NDArray[np.float64]:
    """What each row adds to the metric; shapes as in `measure`."""
    match metric:
        case Metric.ERROR | Metric.BALANCED_ERROR:
            losses = outputs.argmax(1) != truth
        case Metric.LOG_LOSS:
            given = outputs[np.arange(len(truth)), truth]
            least = np.finfo(given.dtype).smallest_subnormal  # for a probability that was rounded to 0
            losses = -np.log(np.maximum(given, least).astype(np.float64))
        case Metric.MSE:
            losses = (outputs.astype(np.float64) - truth) ** 2
        case Metric.MAE:
            losses = np.abs(outputs.astype(np.float64) - truth)
    return np.asarray(losses, np.float64)


def interval(metric: Metric, result: TestResult, seed: int) -> tuple[float, float]:
    """A 95 % interval for the metric on a split.

    Wilson's score interval for the error (Wilson 1927, JASA 22, p. 209); for the balanced error those of the classes,
    put together (Zou & Donner 2008, Statistics in Medicine 27, p. 1693), so that a few rows without an error don't look
    like certainty; for the other metrics the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13), or the
    normal interval where there are more than `MOST_BOOTSTRAP_ROWS`.
    """
    losses = row_losses(metric, result.truth, result.outputs)
    if metric is Metric.ERROR:
        return _mean_of_shares([losses])
    if metric is Metric.BALANCED_ERROR:
        return _mean_of_shares([losses[result.truth == label] for label in np.unique(result.truth)])
    random, rows = np.random.default_rng(seed), len(losses)
    if rows > MOST_BOOTSTRAP_ROWS:
        mean, half = float(losses.mean()), Z * float(losses.std(ddof=1)) / math.sqrt(rows)
        return max(0.0, mean - half), mean + half
    draws = [losses[random.integers(0, rows, rows)].mean() for _ in range(BOOTSTRAP_DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _mean_of_shares(groups: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The interval of the mean of the groups' shares of ones; of a single group, Wilson's own."""
    below, above, shares = [], [], []
    for group in groups:
        share = float(group.mean())
        low, high = wilson(share, len(group))
        shares.append(share)
        below.append(share - low)
        above.append(high - share)
    mean = float(np.mean(shares))
    ends = mean - np.linalg.norm(below) / len(groups), mean + np.linalg.norm(above) / len(groups)
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))


def level(metric: Metric, result: TestResult, seed: int) -> Level:
    """The metric of a result with its interval, reckoned from its rows."""
    low, high = interval(metric, result, seed)
    value = measure(metric, result.truth, result.outputs)
    return Level(value=value, low=min(low, value), high=max(high, value))


def level_of(metric: Metric, value: float, rows: float, *, like: Level, like_rows: float) -> Level:
    """About the interval of a value whose single rows are not at hand.

    Wilson's for the shares. For the other metrics that of another level of the same kind of losses: relative to its
    value as wide, and narrower by the square root of the rows.

    Args:
        rows: As `effective_rows` counts them; so is `like_rows`.
    """
    if metric in SHARES:
        low, high = wilson(value, rows)
        return Level(value=value, low=min(low, value), high=max(high, value))
    scale = value / like.value * math.sqrt(like_rows / rows) if like.value > 0 else 0.0
    low = max(0.0, value - scale * (like.value - like.low))
    return Level(value=value, low=low, high=value + scale * (like.high - like.value))


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of rows, whose number need not be whole."""
    centre = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_rows(metric: Metric, targets: Numbers) -> float:
    """How many rows a mean over all of them would need to vary as little: for the balanced error the small classes
    decide, ``classes ** 2 / sum(1 / rows of a class)``; else all rows count."""
    if metric is not Metric.BALANCED_ERROR:
        return float(len(targets))
    counts = np.unique(targets, return_counts=True)[1]
    return float(len(counts) ** 2 / np.sum(1 / counts))


def difference(one: Level, other: Level) -> Level:
    """``one - other`` of two levels with independent rows, with an interval that is made of theirs (MOVER; Zou & Donner
    2008, Statistics in Medicine 27, p. 1693)."""
    value = one.value - other.value
    return Level(
        value=value,
        low=value - math.hypot(one.value - one.low, other.high - other.value),
        high=value + math.hypot(one.high - one.value, other.value - other.low),
    )


def chance(metric: Metric, dataset: Dataset, split: Split, seed: int) -> Level:
    """The best constant guess, which is fitted on the train split, measured on `split`.

    The most frequent class for the error, the classes' shares for the log loss, the mean for the squared error, and
    the median for the absolute one.
    """
    learnt = dataset.train.targets
    if dataset.task is Task.CLASSIFICATION:
        shares = np.bincount(learnt, minlength=dataset.outputs) / len(learnt)
        guess = np.broadcast_to(shares, (len(split), len(shares)))
        return level(metric, TestResult(outputs=guess, value=math.nan, truth=split.targets), seed)
    # The target's mean would only cost digits: both sides have it.
    scale = dataset.preprocessing.target_std
    learnt, truth = learnt.astype(np.float64) * scale, split.targets.astype(np.float64) * scale
    centre = np.median(learnt) if metric is Metric.MAE else np.mean(learnt)
    return level(metric, TestResult(outputs=np.full(len(truth), centre), value=math.nan, truth=truth), seed)


def levels(
    *,
    metric: Metric,
    dataset: Dataset,
    train: TestResult,
    validation: TestResult,
    test: TestResult | None,
    simple: dict[str, TestResult],
    human: float | None,
    target: float | None,
    seed: int,
) -> Levels:
    """All levels of a study's winner.

    Args:
        train: The winner on the train split; so are `validation` and `test`, which is None while that split is shut.
        simple: What simple models say on the test split, or on the validation split while `test` is None.
    """
    models = {name: level(metric, result, seed) for name, result in simple.items()}
    return Levels(
        chance=chance(metric, dataset, dataset.validation if test is None else dataset.test, seed),
        simple=min(models.values(), key=lambda each: each.value, default=None),
        simple_models=models,
        human=human,
        target=target,
        train=level(metric, train, seed),
        validation=level(metric, validation, seed),
        test=None if test is None else level(metric, test, seed),
        split="validation" if test is None else "test",
    )


def quick_levels(
    *,
    metric: Metric,
    dataset: Dataset,
    train: float,
    validation: float,
    test: Level,
    human: float | None,
    target: float | None,
    seed: int,
) -> Levels:
    """The levels as far as they are known when a study ends: without simple models, and with intervals of train and
    validation that are reckoned from their rows (`level_of`)."""
    rows = {
        name: effective_rows(metric, split.targets)
        for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    }
    return Levels(
        chance=chance(metric, dataset, dataset.test, seed),
        simple=None,
        simple_models={},
        human=human,
        target=target,
        train=level_of(metric, train, rows["train"], like=test, like_rows=rows["test"]),
        validation=level_of(metric, validation, rows["validation"], like=test, like_rows=rows["test"]),
        test=test,
        split="test",
    )
