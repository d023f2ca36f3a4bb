"""Importances and dependences of columns, against scikit-learn's and against what must come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression

from search.explain.columns import dependence, grid, permutation_importances
from search.insight.levels import measure
from trainer.data.columns import Column, ColumnKind
from trainer.data.dataset import Preprocessing
from trainer.work import Metric

ROWS = 300


def numbers(count: int) -> Preprocessing:
    """Columns of numbers that are encoded as they are."""
    records = tuple({"name": f"x{i}", "kind": "number", "mean": 0.0, "std": 1.0, "fill": 0.0} for i in range(count))
    return Preprocessing(kind="table", task="", columns=records)


MIXED = Preprocessing(
    kind="table",
    task="",
    columns=(
        {"name": "size", "kind": "number", "mean": 2.0, "std": 4.0, "fill": 6.0, "missing": True},
        {"name": "colour", "kind": "category", "values": ["blue", "red", "white"]},
    ),
)
"""Five features: the standardised size, whether it is missing, and one for each colour."""


def mixed_inputs(random: np.random.Generator) -> np.ndarray[Any, Any]:
    missing = random.random(ROWS) < 0.2
    size = np.where(missing, 1.0, random.normal(size=ROWS))
    return np.column_stack([size, missing, np.eye(3)[random.integers(0, 3, ROWS)]]).astype(np.float32)


ASKS: dict[Metric, Any] = {
    Metric.MAE: lambda rows: rows[:, 0],
    Metric.BALANCED_ERROR: lambda rows: np.column_stack([rows[:, 0] < 0, rows[:, 0] > 0]),
}


@pytest.mark.parametrize("metric", list(Metric))
def test_importances_are_those_of_scikit_learn(metric: Metric) -> None:
    """Both shuffle by chance: means over many repeats meet."""
    random = np.random.default_rng(3)
    inputs = random.normal(size=(ROWS, 3))
    score = inputs @ [2.0, 1.0, 0.0] + random.normal(0, 0.5, ROWS)
    classes = metric not in (Metric.MSE, Metric.MAE)
    truth = np.digitize(score, [-2.5, 1.0]) if classes else score
    model = (LogisticRegression() if classes else LinearRegression()).fit(inputs, truth)
    ask = model.predict_proba if classes else model.predict

    ours = permutation_importances(ask, metric, inputs, truth, numbers(3), seed=1)

    theirs = permutation_importance(
        model,
        inputs,
        truth,
        scoring=lambda _model, rows, labels: -measure(metric, labels, ask(rows)),
        n_repeats=60,
        random_state=2,
    )
    deviation = theirs.importances_std * (1 / 20 + 1 / 60) ** 0.5
    for column, importance in enumerate(ours):
        assert abs(importance.value - theirs.importances_mean[column]) <= 4 * deviation[column] + 1e-3
        assert importance.low <= importance.value <= importance.high
    assert ours[0].value > ours[1].value > ours[2].value


def test_a_column_that_the_network_does_not_look_at_is_worth_exactly_nothing() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(50, 2))
    needed, unused = permutation_importances(
        lambda rows: rows[:, 0], Metric.MSE, inputs, inputs[:, 0], numbers(2), seed=0
    )

    assert (unused.value, unused.low, unused.high) == (0.0, 0.0, 0.0)
    assert 0 < needed.low < needed.value < needed.high


@pytest.mark.parametrize("metric", [Metric.MAE, Metric.BALANCED_ERROR])
def test_the_interval_holds_the_true_importance_as_often_as_it_says(metric: Metric) -> None:
    """150 samples of 60 rows, of which some 142 should hold what infinitely many rows would give."""
    random = np.random.default_rng(5)
    held = 0
    for seed in range(150):
        inputs = random.normal(size=(60, 1))
        if metric is Metric.MAE:  # |N(0, 3)| with another row's value, |N(0, 1)| with its own
            truth = inputs[:, 0] + random.normal(size=60)
            true = (2 / np.pi) ** 0.5 * (3**0.5 - 1)
        else:  # one class in five, answered by the input's sign; 20 % of the answers are turned around
            truth = (random.random(60) < 0.2).astype(np.int64)
            inputs[:, 0] = np.abs(inputs[:, 0]) * np.where(truth != (random.random(60) < 0.2), 1, -1)
            true = 0.5 - 0.2
        found = permutation_importances(ASKS[metric], metric, inputs, truth, numbers(1), seed)[0]
        held += found.low <= true <= found.high
    assert 133 <= held <= 149


def test_the_same_seed_gives_the_same_importances() -> None:
    inputs = np.random.default_rng(0).normal(size=(30, 1))
    once, again, other = (
        permutation_importances(lambda x: x[:, 0], Metric.MSE, inputs, inputs[:, 0], numbers(1), seed)
        for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_all_features_of_a_column_are_shuffled_together() -> None:
    seen: list[np.ndarray[Any, Any]] = []
    inputs = mixed_inputs(np.random.default_rng(1))

    def ask(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.append(rows.copy())
        return rows[:, 0]

    permutation_importances(ask, Metric.MSE, inputs, inputs[:, 0], MIXED, seed=0)

    _, size, colour = seen
    for rows in size.reshape(-1, ROWS, 5):
        np.testing.assert_array_equal(rows[:, 2:], inputs[:, 2:])
        assert sorted(map(tuple, rows[:, :2])) == sorted(map(tuple, inputs[:, :2]))
    for rows in colour.reshape(-1, ROWS, 5):
        np.testing.assert_array_equal(rows[:, :2], inputs[:, :2])
        assert (rows[:, 2:].sum(axis=1) == 1).all()
    assert not np.array_equal(colour.reshape(-1, ROWS, 5)[0], colour.reshape(-1, ROWS, 5)[1])


class _Answers(BaseEstimator):  # type: ignore[misc]
    """What scikit-learn takes for an estimator."""

    def fit(self, inputs: Any, truth: Any) -> Any:
        self.fitted_ = True
        return self


class _Regressor(RegressorMixin, _Answers):  # type: ignore[misc]
    def predict(self, inputs: Any) -> Any:
        return regression(inputs)


class _Classifier(ClassifierMixin, _Answers):  # type: ignore[misc]
    classes_ = np.arange(3)

    def predict_proba(self, inputs: Any) -> Any:
        return chances(inputs)


def regression(inputs: Any) -> Any:
    return np.sin(inputs[:, 0]) * inputs[:, 1] + inputs[:, 2] ** 2


def chances(inputs: Any) -> Any:
    powers = np.exp(inputs[:, :3])
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [True, False])
def test_dependences_are_those_of_scikit_learn(classes: bool) -> None:
    random = np.random.default_rng(4)
    inputs = random.normal(size=(60, 4))
    model = (_Classifier() if classes else _Regressor()).fit(inputs, None)
    values = np.linspace(-2, 2, 9)

    ours = dependence(chances if classes else regression, 1, values.tolist(), inputs, numbers(4), lines=60)

    theirs = partial_dependence(
        model,
        inputs,
        [1],
        kind="both",
        custom_values={1: values},
        method="brute",
        response_method="predict_proba" if classes else "auto",
    )
    np.testing.assert_allclose(ours.mean.T, theirs["average"], atol=1e-6)
    np.testing.assert_allclose(ours.lines.transpose(2, 0, 1), theirs["individual"], atol=1e-6)


@pytest.mark.parametrize(
    ("index", "values", "features"),
    [
        (0, [2.0, 6.0, None], [[0, 0], [1, 0], [1, 1]]),
        (1, ["red", "blue", "unknown", None], [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_a_dependence_asks_about_the_column_encoded_as_the_network_learnt_it(
    index: int, values: list[Any], features: list[list[float]]
) -> None:
    inputs = mixed_inputs(np.random.default_rng(2))
    found = dependence(lambda rows: rows, index, values, inputs, MIXED, lines=7)

    assert found.lines.shape == (7, len(values), 5)
    own, others = (slice(0, 2), slice(2, 5)) if index == 0 else (slice(2, 5), slice(0, 2))
    for place, expected in enumerate(features):
        np.testing.assert_array_equal(found.lines[:, place, own], np.tile(expected, (7, 1)))
        np.testing.assert_array_equal(found.lines[:, place, others], inputs[:7, others])
    np.testing.assert_allclose(found.mean[:, others][0], inputs[:, others].mean(axis=0), rtol=1e-5)


def column(values: list[Any], kind: ColumnKind) -> Column:
    array = np.array(values, np.float64 if kind in (ColumnKind.REAL, ColumnKind.WHOLE) else object)
    return Column(name="c", kind=kind, values=array)


def test_a_grid_spans_the_train_splits_numbers_without_their_extremes() -> None:
    values = np.random.default_rng(0).normal(size=1000).tolist()
    found = grid(column([*values, 1e9], ColumnKind.REAL), np.arange(1000))

    assert len(found) == 24
    assert found == sorted(found)
    assert np.mean(values < np.float64(found[0])) == pytest.approx(0.02, abs=0.002)
    assert np.mean(values > np.float64(found[-1])) == pytest.approx(0.02, abs=0.002)


def test_a_grid_has_the_very_values_of_a_column_with_few() -> None:
    rows = np.arange(6)
    assert grid(column([3, 1, 1, 2, 3, 9], ColumnKind.WHOLE), np.arange(5)) == [1, 2, 3]
    assert grid(column([0.5, np.nan, 2.5, 2.5, 0.5, 1.0], ColumnKind.REAL), rows) == [0.5, 1.0, 2.5, None]
    assert grid(column(["b", "a", "b", None, "c", "b"], ColumnKind.TEXT), rows) == ["b", "a", "c", None]


def test_a_grid_of_whole_numbers_stays_whole() -> None:
    found = grid(column(list(range(1000)), ColumnKind.WHOLE), np.arange(1000))
    assert found == [float(int(value)) for value in found]


def test_a_grid_has_the_most_frequent_of_many_categories() -> None:
    texts = [f"t{number:02}" for number in range(40) for _ in range(40 - number)]
    assert grid(column(texts, ColumnKind.TEXT), np.arange(len(texts))) == [f"t{number:02}" for number in range(24)]
