"""What can be had without a network: a linear model and a random forest of scikit-learn, on the same splits and the
same inputs."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from search.insight.levels import measure
from trainer.data.dataset import Dataset, Split, Task
from trainer.work import Metric, TestResult

MOST_NUMBERS = 4_000_000
"""Rows times features that a simple model learns from: a few seconds of one core for the slower of the two."""

MOST_FEATURES = 1024
"""Larger images are averaged down to this many pixels and channels, about."""

TREES = 100

Array = npt.NDArray[Any]


def simple_models(
    metric: Metric, dataset: Dataset, split: Split, seed: int
) -> tuple[dict[str, TestResult], tuple[str, ...]]:
    """A linear model and a random forest, as scikit-learn gives them, fitted on the train split.

    Logistic regression, or ridge regression with its penalty chosen by leave-one-out; a forest's class shares are
    smoothed by those of the train split as if by one more tree, for without that the log loss is infinite where all
    trees are wrong.

    Returns:
        What each says on `split`, by its name, and in words what was left out to stay quick.
    """
    inputs, shrunk = features(dataset, dataset.train)
    rows = _sampled(len(inputs), inputs.shape[1], seed)
    notes = []
    if shrunk:
        notes.append(f"The simple models saw the images averaged down to {inputs.shape[1]} numbers each.")
    if len(rows) < len(inputs):
        notes.append(f"The simple models learnt from {len(rows):,} of the {len(inputs):,} train rows, to stay quick.")
    inputs, targets = inputs[rows], dataset.train.targets[rows]
    asked, _ = features(dataset, split)
    found = {}
    for name, model in _models(metric, dataset.task, seed).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the linear model would like more steps: it is a yardstick only
            model.fit(inputs, targets)
        outputs, truth = _answers(model, dataset, targets, asked), split.targets
        if dataset.task is Task.REGRESSION:
            scale, shift = dataset.preprocessing.target_std, dataset.preprocessing.target_mean
            outputs, truth = outputs * scale + shift, truth.astype(np.float64) * scale + shift
        found[name] = TestResult(outputs=outputs, value=measure(metric, truth, outputs), truth=truth)
    return found, tuple(notes)


def features(dataset: Dataset, split: Split) -> tuple[Array, bool]:
    """A split's inputs as float32 of shape (rows, features), scaled as the network's are; and whether images were
    averaged down."""
    inputs = split.inputs
    if inputs.ndim == 2:
        return inputs, False
    channels, height, width = inputs.shape[1:]
    block = math.ceil(math.sqrt(channels * height * width / MOST_FEATURES))
    if block > 1:
        high, wide = max(1, height // block), max(1, width // block)
        cut = inputs[:, :, : high * block, : wide * block].astype(np.float32)
        inputs = cut.reshape(len(inputs), channels, high, min(block, height), wide, min(block, width)).mean((3, 5))
    mean = np.asarray(dataset.preprocessing.mean or 0.0, np.float32).reshape(-1, 1, 1)
    std = np.asarray(dataset.preprocessing.std or 1.0, np.float32).reshape(-1, 1, 1)
    return ((inputs - mean) / std).reshape(len(inputs), -1).astype(np.float32), block > 1


def _sampled(rows: int, width: int, seed: int) -> Array:
    """As many rows as `MOST_NUMBERS` allows."""
    most = max(1000, MOST_NUMBERS // max(1, width))
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _models(metric: Metric, task: Task, seed: int) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV

    own = seed % 2**32
    if task is Task.REGRESSION:
        return {
            "ridge regression": RidgeCV(alphas=np.logspace(-3, 4, 15)),
            "random forest": RandomForestRegressor(TREES, max_features=1 / 3, random_state=own),
        }
    weight = "balanced" if metric is Metric.BALANCED_ERROR else None
    return {
        "logistic regression": LogisticRegression(max_iter=200, class_weight=weight),
        "random forest": RandomForestClassifier(TREES, class_weight=weight, random_state=own),
    }


def _answers(model: Any, dataset: Dataset, targets: Array, asked: Array) -> Array:
    """Probabilities of all classes, those that the model has not met included; or standardised values."""
    if dataset.task is Task.REGRESSION:
        return np.asarray(model.predict(asked), np.float64)
    shares = np.zeros((len(asked), dataset.outputs))
    shares[:, model.classes_] = model.predict_proba(asked)
    if hasattr(model, "estimators_"):
        usual = (np.bincount(targets, minlength=dataset.outputs) + 1) / (len(targets) + dataset.outputs)
        shares = (shares * TREES + usual) / (TREES + 1)
    return shares
