"""What a result is worth: the interval of its test metric, the level of chance, and a few plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from trainer.data.dataset import Dataset, Task
from trainer.work import Metric, TestResult

Numbers = npt.NDArray[Any]

BOOTSTRAP_DRAWS = 2000


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
    """What each row adds to the metric."""
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
    """A 95 % interval for the test metric.

    Wilson's score interval for the error (Wilson 1927, JASA 22, p. 209); for the balanced error those of the classes,
    put together (Zou & Donner 2008, Statistics in Medicine 27, p. 1693), so that a few rows without an error don't look
    like certainty; for the other metrics the percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13).
    """
    losses = row_losses(metric, result.truth, result.outputs)
    if metric is Metric.ERROR:
        return _mean_of_shares([losses])
    if metric is Metric.BALANCED_ERROR:
        return _mean_of_shares([losses[result.truth == label] for label in np.unique(result.truth)])
    random, rows = np.random.default_rng(seed), len(losses)
    draws = [losses[random.integers(0, rows, rows)].mean() for _ in range(BOOTSTRAP_DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _mean_of_shares(groups: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The interval of the mean of the groups' shares of ones; of a single group, Wilson's own."""
    below, above, shares = [], [], []
    for group in groups:
        share = float(group.mean())
        bounds = stats.binomtest(int(group.sum()), len(group)).proportion_ci(0.95, method="wilson")
        shares.append(share)
        below.append(share - bounds.low)
        above.append(bounds.high - share)
    mean = float(np.mean(shares))
    low, high = mean - np.linalg.norm(below) / len(groups), mean + np.linalg.norm(above) / len(groups)
    return max(0.0, float(low)), min(1.0, float(high))


def chance(metric: Metric, dataset: Dataset) -> float:
    """The test metric of the best constant guess, which is fitted on the train split.

    The most frequent class for the error, the classes' shares for the log loss, the mean for the squared error, and
    the median for the absolute one.
    """
    train, test = dataset.train.targets, dataset.test.targets
    if dataset.task is Task.CLASSIFICATION:
        shares = np.bincount(train, minlength=dataset.outputs) / len(train)
        guess = np.tile(shares, (len(test), 1))
        return measure(metric, test, guess)
    # The target's mean would only cost digits: both sides have it.
    scale = dataset.preprocessing.target_std
    train, test = train.astype(np.float64) * scale, test.astype(np.float64) * scale
    centre = np.median(train) if metric is Metric.MAE else np.mean(train)
    return measure(metric, test, np.full(len(test), centre))


def sentences(
    *,
    metric: str,
    train: float,
    validation: float,
    test: float,
    bounds: tuple[float, float],
    rows: int,
    chance: float,
    human: float | None,
) -> list[str]:
    """What the figures say, in the order in which a practitioner reads them.

    A difference is called one only where it leaves the test metric's interval.
    """
    low, high = bounds
    said = [
        f"On {rows} rows that no trial has seen, the {metric} is {_figure(test)}; with 95 % confidence it lies between "
        f"{_figure(low)} and {_figure(high)}."
    ]
    if test >= chance:
        said.append(f"That is no better than the best constant guess ({_figure(chance)}): nothing was learnt.")
    elif chance <= high:
        said.append(f"It can't be told from the best constant guess ({_figure(chance)}) with this many test rows.")
    elif test > 0:
        said.append(f"The best constant guess gets {_figure(chance)}: {chance / test:.3g} times as much.")
    else:
        said.append(f"The best constant guess gets {_figure(chance)}.")
    if human is not None:
        if high < human:
            said.append(f"It is better than a person ({_figure(human)}).")
        elif low <= human:
            said.append(f"It can't be told from a person's {_figure(human)} with this many test rows.")
        else:
            said.append(f"A person gets {_figure(human)}: there is still something to win.")
    half = (high - low) / 2
    if human is not None and train > human + half:
        said.append(
            f"Underfitting: the training {metric} itself is {_figure(train)}. Try a larger network or more epochs."
        )
    if validation > train + half:
        said.append(
            f"Overfitting: the training {metric} is {_figure(train)}, the validation {metric} {_figure(validation)}. "
            "More rows, dropout or weight decay are the things to try."
        )
    if not low <= validation <= high:
        verb = "above" if validation < low else "below"
        said.append(
            f"The test {metric} lies {verb} the validation {metric} ({_figure(validation)}) by more than its interval"
            + (": the search has fitted the validation split." if validation < low else ".")
        )
    return said


def _figure(value: float) -> str:
    return f"{value:.4g}"
