"""What a result is worth, held against scikit-learn, SciPy and closed formulas."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import dummy, linear_model, metrics

from search.insight.findings import Level
from search.insight.levels import (
    MOST_BOOTSTRAP_ROWS,
    chance,
    difference,
    effective_rows,
    interval,
    level,
    level_of,
    levels,
    measure,
    quick_levels,
    wilson,
)
from search.insight.simple_models import simple_models
from trainer.data.dataset import Dataset, Preprocessing, Split, Task
from trainer.work import Metric, TestResult

CLASS_METRICS = (Metric.ERROR, Metric.BALANCED_ERROR, Metric.LOG_LOSS)
VALUE_METRICS = (Metric.MSE, Metric.MAE)


def guesses(rows: int, classes: int = 3, seed: int = 0) -> TestResult:
    """Probabilities that are right more often than not; classes of different sizes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, rows, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    logits = rng.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[truth]
    outputs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return TestResult(outputs=outputs.astype(np.float32), value=math.nan, truth=truth)


def values(rows: int, seed: int = 0) -> TestResult:
    rng = np.random.default_rng(seed)
    truth = rng.normal(150, 80, rows)
    return TestResult(outputs=(truth + rng.normal(0, 40, rows)).astype(np.float32), value=math.nan, truth=truth)


def counted(wrong: dict[int, int], rows: dict[int, int]) -> TestResult:
    """So many rows of each class, of which so many are taken for the next class."""
    classes = len(rows)
    truth = np.concatenate([np.full(count, label) for label, count in rows.items()])
    predicted = truth.copy()
    for label, count in wrong.items():
        predicted[np.flatnonzero(truth == label)[:count]] = (label + 1) % classes
    return TestResult(outputs=np.eye(classes, dtype=np.float32)[predicted], value=math.nan, truth=truth)


def sklearns(metric: Metric, result: TestResult) -> float:
    truth, outputs = result.truth, result.outputs.astype(np.float64)
    match metric:
        case Metric.ERROR:
            return float(1 - metrics.accuracy_score(truth, outputs.argmax(1)))
        case Metric.BALANCED_ERROR:
            return float(1 - metrics.balanced_accuracy_score(truth, outputs.argmax(1)))
        case Metric.LOG_LOSS:
            outputs /= outputs.sum(1, keepdims=True)
            return float(metrics.log_loss(truth, outputs, labels=range(outputs.shape[1])))
        case Metric.MSE:
            return float(metrics.mean_squared_error(truth, outputs))
        case Metric.MAE:
            return float(metrics.mean_absolute_error(truth, outputs))


def result_for(metric: Metric, rows: int, seed: int = 0) -> TestResult:
    return guesses(rows, seed=seed) if metric in CLASS_METRICS else values(rows, seed)


# The metric


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # the oracle's
@pytest.mark.parametrize("rows", [1, 2, 7, 400])
@pytest.mark.parametrize("metric", Metric)
def test_the_metric_is_that_of_scikit_learn(metric: Metric, rows: int) -> None:
    result = result_for(metric, rows)

    assert measure(metric, result.truth, result.outputs) == pytest.approx(sklearns(metric, result), rel=1e-6, abs=1e-12)


def test_classes_that_do_not_occur_in_the_split_do_not_count() -> None:
    outputs = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]], np.float32)
    truth = np.array([0, 0])

    assert measure(Metric.BALANCED_ERROR, truth, outputs) == 0.5
    assert measure(Metric.LOG_LOSS, truth, outputs) == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)


def test_a_wrong_answer_given_with_full_confidence_is_as_bad_as_it_is_and_finite() -> None:
    """The trainer takes the log loss from the logits: 46 for a probability of 1e-20, not what a clip makes of it."""
    unlikely = np.array([[1, 1e-20]], np.float32)
    never = np.array([[1, 0]], np.float32)

    assert measure(Metric.LOG_LOSS, np.array([1]), unlikely) == pytest.approx(20 * math.log(10))
    assert measure(Metric.LOG_LOSS, np.array([1]), unlikely.astype(float) ** 10) == pytest.approx(200 * math.log(10))
    assert 100 < measure(Metric.LOG_LOSS, np.array([1]), never) < 150
    assert 700 < measure(Metric.LOG_LOSS, np.array([1]), never.astype(float)) < 800


# The interval


@pytest.mark.parametrize(
    ("wrong", "rows"), [(0, 1), (1, 1), (0, 5), (5, 5), (3, 270), (135, 270), (270, 270), (1, 9999)]
)
def test_the_interval_of_an_error_is_wilsons(wrong: int, rows: int) -> None:
    """Wilson 1927: the shares p with (observed - p)^2 = z^2 p (1 - p) / n."""
    z, share = stats.norm.ppf(0.975), wrong / rows
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))

    low, high = interval(Metric.ERROR, counted({0: wrong}, {0: rows, 1: 0}), seed=0)

    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert 0 <= low <= share <= high <= 1
    assert low < high


def test_no_error_on_a_few_rows_is_not_certainty() -> None:
    """Wilson's upper end for 0 of n is z^2 / (n + z^2): 0.434 for 5 rows."""
    spotless = counted({}, {0: 5, 1: 5})

    assert interval(Metric.ERROR, counted({}, {0: 5, 1: 0}), seed=0) == pytest.approx((0, 0.4345), abs=1e-4)
    low, high = interval(Metric.BALANCED_ERROR, spotless, seed=0)
    assert low == 0
    # Two classes' upper ends put together: sqrt(0.4345^2 + 0.4345^2) / 2.
    assert high == pytest.approx(0.3072, abs=1e-4)


def test_all_wrong_on_a_few_rows_is_not_certainty_either() -> None:
    low, high = interval(Metric.BALANCED_ERROR, counted({0: 5, 1: 5}, {0: 5, 1: 5}), seed=0)

    assert (low, high) == pytest.approx((1 - 0.3072, 1), abs=1e-4)


def test_with_one_class_the_balanced_error_has_the_errors_interval() -> None:
    result = counted({0: 7}, {0: 40, 1: 0})

    assert interval(Metric.BALANCED_ERROR, result, seed=0) == pytest.approx(interval(Metric.ERROR, result, seed=0))


@pytest.mark.parametrize("shares", [(0.02, 0.3), (0.5, 0.5), (0.0, 0.1), (0.05, 0.05)])
def test_the_balanced_errors_interval_holds_the_true_value_about_19_times_in_20(shares: tuple[float, float]) -> None:
    rng, held, draws = np.random.default_rng(3), 0, 600
    sizes = ((30, shares[0]), (60, shares[1]))
    for _ in range(draws):
        wrong = {label: int(rng.binomial(rows, share)) for label, (rows, share) in enumerate(sizes)}
        low, high = interval(Metric.BALANCED_ERROR, counted(wrong, {0: 30, 1: 60}), seed=0)
        held += low <= sum(shares) / 2 <= high

    assert 0.92 <= held / draws <= 0.995


@pytest.mark.parametrize("metric", [Metric.LOG_LOSS, Metric.MSE, Metric.MAE])
def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap(metric: Metric) -> None:
    result = result_for(metric, 150)
    rows = np.arange(150)

    def statistic(chosen: Any, axis: int) -> Any:
        picked = [
            TestResult(outputs=result.outputs[c], value=0, truth=result.truth[c]) for c in chosen.reshape(-1, 150)
        ]
        return np.array([sklearns(metric, each) for each in picked]).reshape(chosen.shape[:-1])

    theirs = stats.bootstrap(
        (rows,), statistic, n_resamples=400, method="percentile", rng=np.random.default_rng(5), vectorized=True
    ).confidence_interval
    low, high = interval(metric, result, seed=1)

    # Two runs of a bootstrap differ by some hundredths of the interval's width.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low))


@pytest.mark.parametrize("metric", Metric)
def test_the_interval_holds_its_own_metric_and_narrows_with_the_rows(metric: Metric) -> None:
    widths = []
    for rows in (40, 4000):
        result = result_for(metric, rows)
        low, high = interval(metric, result, seed=0)
        assert low < measure(metric, result.truth, result.outputs) < high
        widths.append(high - low)
    # By sqrt(100), give or take.
    assert 6 < widths[0] / widths[1] < 16


def test_an_interval_is_the_same_for_the_same_seed() -> None:
    result = values(60)

    assert interval(Metric.MAE, result, seed=4) == interval(Metric.MAE, result, seed=4)
    assert interval(Metric.MAE, result, seed=4) != interval(Metric.MAE, result, seed=5)


# Chance


def held(train: Any, test: Any, classes: int = 1, mean: float = 0.0, std: float = 1.0) -> Dataset:
    """Targets as the trainer has them; nothing of the inputs is looked at."""
    task = Task.CLASSIFICATION if classes > 1 else Task.REGRESSION

    def split(targets: Any) -> Split:
        kind = np.int64 if classes > 1 else np.float32
        array = np.asarray(targets, kind)
        return Split(inputs=np.zeros((len(array), 1), np.float32), targets=array, rows=np.arange(len(array)))

    return Dataset(
        task=task,
        train=split(train),
        validation=split(test),
        test=split(test),
        preprocessing=Preprocessing(kind="table", task=task.value, target_mean=mean, target_std=std),
        input_shape=(1,),
        outputs=classes,
        split_hash="",
        example=[],
    )


def told(metric: Metric, data: Dataset) -> float:
    return chance(metric, data, data.test, seed=0).value


@pytest.mark.parametrize(("metric", "strategy"), [(m, "prior") for m in CLASS_METRICS])
def test_chance_of_a_classification_is_scikit_learns_best_constant_guess(metric: Metric, strategy: str) -> None:
    rng = np.random.default_rng(2)
    train, test = rng.choice(3, 200, p=(0.2, 0.5, 0.3)), rng.choice(3, 60, p=(0.3, 0.3, 0.4))
    guesser = dummy.DummyClassifier(strategy=strategy).fit(np.zeros((200, 1)), train)
    guess = TestResult(outputs=guesser.predict_proba(np.zeros((60, 1))), value=0, truth=test)

    assert told(metric, held(train, test, classes=3)) == pytest.approx(sklearns(metric, guess))


@pytest.mark.parametrize(("metric", "strategy"), [(Metric.MSE, "mean"), (Metric.MAE, "median")])
def test_chance_of_a_regression_is_scikit_learns_best_constant_guess(metric: Metric, strategy: str) -> None:
    rng = np.random.default_rng(2)
    raw_train, raw_test = rng.exponential(300, 200), rng.exponential(300, 60)
    mean, std = float(raw_train.mean()), float(raw_train.std())
    guesser = dummy.DummyRegressor(strategy=strategy).fit(np.zeros((200, 1)), raw_train)
    guess = TestResult(outputs=guesser.predict(np.zeros((60, 1))), value=0, truth=raw_test)
    data = held((raw_train - mean) / std, (raw_test - mean) / std, mean=mean, std=std)

    assert told(metric, data) == pytest.approx(sklearns(metric, guess), rel=1e-5)


def test_chance_keeps_its_digits_where_the_target_is_far_from_zero() -> None:
    """Moments in time: at 1.7e9 seconds neighbouring float32 numbers are 128 apart."""
    data = held([-1, 1], [-1, 1, -1, 1], mean=1.7e9, std=3.0)

    assert told(Metric.MSE, data) == pytest.approx(9)
    assert told(Metric.MAE, data) == pytest.approx(3)


def test_chance_has_an_interval_and_is_measured_where_it_is_asked_for() -> None:
    data = held([0] * 70 + [1] * 30, [0, 0, 0, 1], classes=2)

    here = chance(Metric.ERROR, data, data.test, seed=0)
    there = chance(Metric.ERROR, data, data.train, seed=0)

    assert here.value == 0.25
    assert there.value == pytest.approx(0.3)
    assert here.high - here.low > there.high - there.low > 0


# Differences, and values whose rows are not at hand


def test_many_rows_have_the_normal_interval_of_their_mean() -> None:
    result = values(MOST_BOOTSTRAP_ROWS + 1)
    losses = (result.outputs.astype(float) - result.truth) ** 2
    theirs = stats.norm.interval(0.95, losses.mean(), stats.sem(losses))

    assert interval(Metric.MSE, result, seed=0) == pytest.approx(theirs)


def test_the_interval_of_a_difference_holds_the_truth_about_19_times_in_20() -> None:
    random, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        one, other = random.binomial(300, 0.03) / 300, random.binomial(900, 0.01) / 900
        found = difference(
            *(
                Level(value=v, low=low, high=high)
                for v, (low, high) in ((one, wilson(one, 300)), (other, wilson(other, 900)))
            )
        )
        inside += found.low <= 0.02 <= found.high

    assert 0.93 <= inside / 2000 <= 0.975


def test_the_effective_rows_of_a_balanced_error_are_those_of_a_plain_one_with_equal_spread() -> None:
    targets = np.array([0] * 900 + [1] * 100)
    spread = [0.2 * 0.8 / 900, 0.2 * 0.8 / 100]

    rows = effective_rows(Metric.BALANCED_ERROR, targets)

    assert 0.2 * 0.8 / rows == pytest.approx(sum(spread) / 4)
    assert effective_rows(Metric.BALANCED_ERROR, np.arange(40) % 4) == pytest.approx(40)
    assert effective_rows(Metric.ERROR, targets) == 1000


@pytest.mark.parametrize("metric", Metric)
def test_a_value_without_its_rows_gets_nearly_the_interval_that_the_rows_would_give(metric: Metric) -> None:
    rows, more = result_for(metric, 400, seed=1), result_for(metric, 1600, seed=2)
    like, known = level(metric, rows, 0), level(metric, more, 0)

    guessed = level_of(
        metric,
        known.value,
        effective_rows(metric, more.truth),
        like=like,
        like_rows=effective_rows(metric, rows.truth),
    )

    assert guessed.high - guessed.low == pytest.approx(known.high - known.low, rel=0.35)
    assert guessed.low < known.value < guessed.high


# Simple models and all levels


def clouds(rows: int = 900) -> Dataset:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, rows)
    inputs = (random.normal(size=(rows, 5)) + 2 * np.eye(3, 5)[targets]).astype(np.float32)
    parts = [Split(inputs=inputs[r], targets=targets[r], rows=r) for r in np.split(np.arange(rows), [500, 700])]
    return Dataset(
        task=Task.CLASSIFICATION,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        preprocessing=Preprocessing(kind="table", task="classification", classes=("a", "b", "c")),
        input_shape=(5,),
        outputs=3,
        split_hash="",
        example=[],
    )


def test_the_simple_models_are_scikit_learns_on_the_same_splits() -> None:
    data = clouds()

    found, notes = simple_models(Metric.ERROR, data, data.test, seed=3)

    theirs = linear_model.LogisticRegression(max_iter=200).fit(data.train.inputs, data.train.targets)
    assert found["logistic regression"].value == pytest.approx(1 - theirs.score(data.test.inputs, data.test.targets))
    assert found["random forest"].value < 0.35
    assert notes == ()


def test_a_simple_model_can_be_told_of_a_class_that_it_has_not_met_and_its_log_loss_is_finite() -> None:
    data = clouds()
    known = data.train.targets != 2
    train = Split(inputs=data.train.inputs[known], targets=data.train.targets[known], rows=data.train.rows[known])

    found, _ = simple_models(Metric.LOG_LOSS, dataclasses.replace(data, train=train), data.test, seed=3)

    assert found["random forest"].outputs.shape == (200, 3)
    assert found["random forest"].outputs.sum(1) == pytest.approx(np.ones(200))
    assert found["random forest"].value < 10


def test_simple_models_answer_in_the_targets_units_and_large_images_are_averaged_down() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (120, 3, 40, 40)).astype(np.uint8)
    raw = images[:, 0, :20].mean((1, 2)) * 10 + 5000
    mean, std = float(raw.mean()), float(raw.std())
    parts = [
        Split(inputs=images[r], targets=((raw[r] - mean) / std).astype(np.float32), rows=r)
        for r in np.split(np.arange(120), [70, 95])
    ]
    data = Dataset(
        task=Task.REGRESSION,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        preprocessing=Preprocessing(
            kind="image",
            task="regression",
            shape=(3, 40, 40),
            mean=(127.0,) * 3,
            std=(74.0,) * 3,
            target_mean=mean,
            target_std=std,
        ),
        input_shape=(3, 40, 40),
        outputs=1,
        split_hash="",
        example=[],
    )

    found, notes = simple_models(Metric.MAE, data, data.validation, seed=0)

    assert found["ridge regression"].truth == pytest.approx(raw[70:95], rel=1e-5)
    assert found["ridge regression"].value < chance(Metric.MAE, data, data.validation, 0).value
    assert "averaged down to 507 numbers" in notes[0]


def test_levels_are_those_of_the_validation_split_while_the_test_split_is_shut() -> None:
    data, shares = clouds(), dict[str, Any]()
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        right = np.eye(3)[np.where(np.arange(len(split)) % 10 == 0, (split.targets + 1) % 3, split.targets)]
        shares[name] = TestResult(outputs=right, value=0.1, truth=split.targets)
    usual: dict[str, Any] = {"metric": Metric.ERROR, "dataset": data, "human": 0.02, "target": None, "seed": 0}

    shut = levels(**usual, train=shares["train"], validation=shares["validation"], test=None, simple={})
    opened = levels(**usual, **shares, simple={"one": shares["test"]})

    assert (shut.split, shut.test, shut.simple) == ("validation", None, None)
    assert shut.chance == chance(Metric.ERROR, data, data.validation, 0)
    assert (opened.split, opened.chance) == ("test", chance(Metric.ERROR, data, data.test, 0))
    assert opened.simple == opened.test == level(Metric.ERROR, shares["test"], 0)

    quick = quick_levels(**usual, train=0.1, validation=0.1, test=level(Metric.ERROR, shares["test"], 0))
    for name in ("train", "validation", "test"):
        known, quickly = getattr(opened, name), getattr(quick, name)
        assert (quickly.value, quickly.low, quickly.high) == pytest.approx((known.value, known.low, known.high))
