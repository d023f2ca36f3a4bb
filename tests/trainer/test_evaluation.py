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
from trainer.device_data import DeviceSplit
from trainer.evaluation import ROWS_AT_ONCE, figures, predict, scores
from trainer.work import Metric

CLASSES = 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_classification_metrics_are_scikit_learns(labels: list[int], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=3, size=(len(labels), CLASSES))
    # Two networks: the second one's figures must not be mixed with the first one's.
    outputs = torch.from_numpy(np.stack((logits.T, -logits.T)))
    targets = torch.tensor(labels).expand(2, -1)
    answers = logits.argmax(axis=1)
    # scikit-learn counts a class that is only predicted as a warning's matter; the recall is over those that occur.
    recall = sklearn.metrics.recall_score(labels, answers, labels=sorted(set(labels)), average="macro")
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    log_loss = sklearn.metrics.log_loss(labels, probabilities, labels=range(CLASSES))

    def ours(metric: Metric) -> float:
        return scores(metric, outputs, targets, 1.0)[0].item()

    assert ours(Metric.ERROR) == pytest.approx(1 - sklearn.metrics.accuracy_score(labels, answers))
    assert ours(Metric.BALANCED_ERROR) == pytest.approx(1 - recall)
    assert ours(Metric.LOG_LOSS) == pytest.approx(log_loss)
    first, second = figures(outputs, targets, Task.CLASSIFICATION, Metric.ERROR, 1.0)
    assert first.loss == pytest.approx(log_loss)
    assert second.metric == pytest.approx(1 - sklearn.metrics.accuracy_score(labels, logits.argmin(axis=1)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_regression_metrics_are_scikit_learns_in_the_targets_units(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    std, mean = 12.5, 300.0
    answers, truth = rng.normal(mean, std, rows), rng.normal(mean, std, rows)
    outputs = torch.from_numpy((answers - mean) / std)[None, None]
    targets = torch.from_numpy((truth - mean) / std)[None]
    mse = sklearn.metrics.mean_squared_error(truth, answers)
    assert scores(Metric.MSE, outputs, targets, std).item() == pytest.approx(mse)
    assert scores(Metric.MAE, outputs, targets, std).item() == pytest.approx(
        sklearn.metrics.mean_absolute_error(truth, answers)
    )
    (both,) = figures(outputs, targets, Task.REGRESSION, Metric.MAE, std)
    assert both.loss == pytest.approx(mse / std**2)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_regression_metrics_of_tiny_and_huge_units_are_not_lost(unit: float) -> None:
    outputs, targets = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0, 5.0]])
    assert scores(Metric.MSE, outputs, targets, unit).item() == pytest.approx(6.5 * unit**2, rel=1e-12, abs=0)
    assert scores(Metric.MAE, outputs, targets, unit).item() == pytest.approx(2.5 * unit, rel=1e-12, abs=0)


def test_prediction_keeps_the_order_of_rows_over_several_batches() -> None:
    inputs = torch.arange(1000, dtype=torch.float32)[:, None]
    split = DeviceSplit(inputs, inputs[:, 0], lambda batch: batch * 2, torch.float32)
    network = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    assert len(split) > ROWS_AT_ONCE
    assert torch.equal(predict(network, split), inputs * 2)
