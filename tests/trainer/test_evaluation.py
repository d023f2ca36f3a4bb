"""Losses and metrics against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainer.data.dataset import Task
from trainer.evaluation import figures, predict, score
from trainer.work import Metric

CLASSES = 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_classification_metrics_are_scikit_learns(labels: list[int], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=3, size=(len(labels), CLASSES))
    outputs, targets = torch.from_numpy(logits), torch.tensor(labels)
    answers = logits.argmax(axis=1)
    # scikit-learn counts a class that is only predicted as a warning's matter; the recall is over those that occur.
    recall = sklearn.metrics.recall_score(labels, answers, labels=sorted(set(labels)), average="macro")
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    log_loss = sklearn.metrics.log_loss(labels, probabilities, labels=range(CLASSES))
    assert score(Metric.ERROR, outputs, targets, 1.0).item() == pytest.approx(
        1 - sklearn.metrics.accuracy_score(labels, answers)
    )
    assert score(Metric.BALANCED_ERROR, outputs, targets, 1.0).item() == pytest.approx(1 - recall)
    assert score(Metric.LOG_LOSS, outputs, targets, 1.0).item() == pytest.approx(log_loss)
    assert figures(outputs, targets, Task.CLASSIFICATION, Metric.ERROR, 1.0).loss == pytest.approx(log_loss)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_regression_metrics_are_scikit_learns_in_the_targets_units(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    std, mean = 12.5, 300.0
    answers, truth = rng.normal(mean, std, rows), rng.normal(mean, std, rows)
    outputs = torch.from_numpy((answers - mean) / std)[:, None]
    targets = torch.from_numpy((truth - mean) / std)
    mse = sklearn.metrics.mean_squared_error(truth, answers)
    assert score(Metric.MSE, outputs, targets, std).item() == pytest.approx(mse)
    assert score(Metric.MAE, outputs, targets, std).item() == pytest.approx(
        sklearn.metrics.mean_absolute_error(truth, answers)
    )
    assert figures(outputs, targets, Task.REGRESSION, Metric.MAE, std).loss == pytest.approx(mse / std**2)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_regression_metrics_of_tiny_and_huge_units_are_not_lost(unit: float) -> None:
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 5.0])
    assert score(Metric.MSE, outputs, targets, unit).item() == pytest.approx(6.5 * unit**2, rel=1e-12, abs=0)
    assert score(Metric.MAE, outputs, targets, unit).item() == pytest.approx(2.5 * unit, rel=1e-12, abs=0)


def test_prediction_keeps_the_order_of_rows_over_several_batches() -> None:
    inputs = torch.arange(10_000, dtype=torch.float32)[:, None]
    calls = []
    network = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    outputs = predict(network, inputs, lambda batch: batch * 2, lambda: calls.append(1))
    assert torch.equal(outputs, inputs * 2)
    assert len(calls) == 2
