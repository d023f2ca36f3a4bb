"""What a result is worth: the interval of its test metric, the level of chance, and a few plain sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics as sklearn_metrics

from trainer.data.dataset import Dataset, Task
from trainer.work import Metric, TestResult

Numbers = npt.NDArray[Any]

BOOTSTRAP_DRAWS = 2000


def measure(metric: Metric, truth: Numbers, outputs: Numbers, classes: int) -> float:
    """The metric of predictions, by scikit-learn.

    Args:
        truth: Class indices of shape (rows,), or values in the target's units.
        outputs: Probabilities of shape (rows, classes), or values of shape (rows,) in the target's units.
    """
    match metric:
        case Metric.ERROR:
            return float(np.mean(outputs.argmax(1) != truth))
        case Metric.BALANCED_ERROR:
            predicted = outputs.argmax(1)
            recalls = [np.mean(predicted[truth == label] == label) for label in np.unique(truth)]
            return float(1 - np.mean(recalls))
        case Metric.LOG_LOSS:
            return float(sklearn_metrics.log_loss(truth, outputs, labels=range(classes)))
        case Metric.MSE:
            return float(np.mean((outputs - truth) ** 2))
        case Metric.MAE:
            return float(np.mean(np.abs(outputs - truth)))


def interval(metric: Metric, result: TestResult, classes: int, seed: int) -> tuple[float, float]:
    """A 95 % interval for the test metric.

    Wilson's score interval for the error (Wilson 1927, JASA 22, p. 209); for the other metrics the percentile
    bootstrap over rows (Efron & Tibshirani 1993, ch. 13).
    """
    rows = len(result.truth)
    if metric is Metric.ERROR:
        wrong = int(np.sum(result.outputs.argmax(1) != result.truth))
        bounds = stats.binomtest(wrong, rows).proportion_ci(0.95, method="wilson")
        return float(bounds.low), float(bounds.high)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        chosen = random.integers(0, rows, rows)
        draws.append(measure(metric, result.truth[chosen], result.outputs[chosen], classes))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def chance(metric: Metric, dataset: Dataset) -> float:
    """The test metric of the best constant guess, which is fitted on the train split.

    The most frequent class for the error, the classes' shares for the log loss, the mean for the squared error, and
    the median for the absolute one.
    """
    train, test = dataset.train.targets, dataset.test.targets
    if dataset.task is Task.CLASSIFICATION:
        shares = np.bincount(train, minlength=dataset.outputs) / len(train)
        guess = np.tile(shares, (len(test), 1))
        return measure(metric, test, guess, dataset.outputs)
    scale, shift = dataset.preprocessing.target_std, dataset.preprocessing.target_mean
    centre = np.median(train) if metric is Metric.MAE else np.mean(train)
    return measure(metric, test * scale + shift, np.full(len(test), centre * scale + shift), 1)


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
    if low <= chance <= high or test >= chance:
        said.append(f"That is no better than the best constant guess ({_figure(chance)}): nothing was learnt.")
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
