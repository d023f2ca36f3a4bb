"""What a result is worth, held against scikit-learn, SciPy and closed formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import dummy, metrics

from search.insight.levels import chance, interval, measure, sentences
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
        (rows,), statistic, n_resamples=1000, method="percentile", rng=np.random.default_rng(5), vectorized=True
    ).confidence_interval
    low, high = interval(metric, result, seed=1)

    # Two runs of a bootstrap differ by some hundredths of the interval's width.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))


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


def dataset(train: Any, test: Any, classes: int = 1, mean: float = 0.0, std: float = 1.0) -> Dataset:
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


@pytest.mark.parametrize(("metric", "strategy"), [(m, "prior") for m in CLASS_METRICS])
def test_chance_of_a_classification_is_scikit_learns_best_constant_guess(metric: Metric, strategy: str) -> None:
    rng = np.random.default_rng(2)
    train, test = rng.choice(3, 200, p=(0.2, 0.5, 0.3)), rng.choice(3, 60, p=(0.3, 0.3, 0.4))
    guesser = dummy.DummyClassifier(strategy=strategy).fit(np.zeros((200, 1)), train)
    guess = TestResult(outputs=guesser.predict_proba(np.zeros((60, 1))), value=0, truth=test)

    assert chance(metric, dataset(train, test, classes=3)) == pytest.approx(sklearns(metric, guess))


@pytest.mark.parametrize(("metric", "strategy"), [(Metric.MSE, "mean"), (Metric.MAE, "median")])
def test_chance_of_a_regression_is_scikit_learns_best_constant_guess(metric: Metric, strategy: str) -> None:
    rng = np.random.default_rng(2)
    raw_train, raw_test = rng.exponential(300, 200), rng.exponential(300, 60)
    mean, std = float(raw_train.mean()), float(raw_train.std())
    guesser = dummy.DummyRegressor(strategy=strategy).fit(np.zeros((200, 1)), raw_train)
    guess = TestResult(outputs=guesser.predict(np.zeros((60, 1))), value=0, truth=raw_test)
    held = dataset((raw_train - mean) / std, (raw_test - mean) / std, mean=mean, std=std)

    assert chance(metric, held) == pytest.approx(sklearns(metric, guess), rel=1e-5)


def test_chance_keeps_its_digits_where_the_target_is_far_from_zero() -> None:
    """Moments in time: at 1.7e9 seconds neighbouring float32 numbers are 128 apart."""
    held = dataset([-1, 1], [-1, 1, -1, 1], mean=1.7e9, std=3.0)

    assert chance(Metric.MSE, held) == pytest.approx(9)
    assert chance(Metric.MAE, held) == pytest.approx(3)


# The sentences


def said(**figures: Any) -> str:
    """What is said of an ordinary result, with some figures changed."""
    usual: dict[str, Any] = {
        "metric": "error",
        "train": 0.018,
        "validation": 0.02,
        "test": 0.02,
        "bounds": (0.01, 0.04),
        "rows": 300,
        "chance": 0.9,
        "human": None,
    }
    return " ".join(sentences(**{**usual, **figures}))


def test_the_first_sentence_has_the_metric_the_rows_and_the_interval() -> None:
    words = sentences(
        metric="mae", train=40, validation=44, test=43.21987, bounds=(38.5, 48.25), rows=67, chance=65, human=None
    )[0]

    assert "On 67 rows" in words
    assert "the mae is 43.22" in words
    assert "between 38.5 and 48.25" in words


def test_an_ordinary_result_is_compared_with_chance_and_nothing_is_diagnosed() -> None:
    words = sentences(
        metric="error", train=0.018, validation=0.02, test=0.02, bounds=(0.01, 0.04), rows=300, chance=0.9, human=None
    )

    assert words[1:] == ["The best constant guess gets 0.9: 45 times as much."]


@pytest.mark.parametrize(("test", "bounds"), [(0.9, (0.87, 0.93)), (0.91, (0.85, 0.95)), (0.99, (0.95, 1.0))])
def test_a_result_no_better_than_chance_has_learnt_nothing(test: float, bounds: tuple[float, float]) -> None:
    words = said(train=test, validation=test, test=test, bounds=bounds)

    assert "nothing was learnt" in words
    assert "times as much" not in words


def test_a_result_that_looks_better_than_chance_by_luck_alone_may_be_so_is_not_called_unlearnt() -> None:
    """No error on 5 rows: Wilson's interval ends at 0.4345, and a coin gets 0.4 wrong."""
    words = said(train=0, validation=0, test=0, bounds=(0, 0.4345), rows=5, chance=0.4)

    assert "can't be told from the best constant guess (0.4) with this many test rows" in words
    assert "nothing was learnt" not in words
    assert "times as much" not in words


def test_a_result_without_an_error_is_no_division_by_zero() -> None:
    words = said(train=0, validation=0, test=0.0, bounds=(0, 0.013), rows=300)

    assert "The best constant guess gets 0.9." in words


def test_all_errors_are_said_plainly() -> None:
    words = said(train=1, validation=1, test=1.0, bounds=(0.987, 1.0))

    assert "the error is 1; with 95 % confidence it lies between 0.987 and 1." in words
    assert "nothing was learnt" in words


@pytest.mark.parametrize(
    ("human", "told"),
    [
        (0.05, "better than a person (0.05)"),
        (0.04, "can't be told from a person's 0.04"),
        (0.02, "can't be told from a person's 0.02"),
        (0.01, "can't be told from a person's 0.01"),
        (0.005, "A person gets 0.005: there is still something to win"),
    ],
)
def test_a_person_is_better_or_worse_only_outside_of_the_interval(human: float, told: str) -> None:
    words = said(human=human)

    assert told in words
    assert sum(each in words for each in ("better than a person", "can't be told from a person", "A person gets")) == 1


def test_a_person_who_makes_no_error_can_still_be_compared_with() -> None:
    assert "can't be told from a person's 0 " in said(test=0.0, bounds=(0, 0.013), human=0.0)


def test_a_training_error_far_above_a_persons_is_underfitting() -> None:
    assert "Underfitting: the training error itself is 0.3" in said(
        train=0.3, validation=0.3, test=0.3, bounds=(0.25, 0.35), human=0.01
    )
    assert "Underfitting" not in said(train=0.3, validation=0.3, test=0.3, bounds=(0.25, 0.35), human=0.26)
    assert "Underfitting" not in said(train=0.3, validation=0.3, test=0.3, bounds=(0.25, 0.35), human=None)


def test_a_gap_between_training_and_validation_that_the_rows_can_show_is_overfitting() -> None:
    """Half the interval is 0.015: a gap of 0.014 may be chance, one of 0.016 is called one."""
    words = said(train=0.004, validation=0.02)
    assert "Overfitting: the training error is 0.004, the validation error 0.02." in words
    assert "Overfitting" not in said(train=0.006, validation=0.02)


def test_a_test_error_above_the_validation_error_says_that_the_search_fitted_the_validation_split() -> None:
    words = said(validation=0.005, train=0.005)
    assert "lies above the validation error (0.005)" in words
    assert "the search has fitted the validation split" in words


def test_a_test_error_below_the_validation_error_blames_nobody() -> None:
    words = said(validation=0.05, train=0.05)
    assert "lies below the validation error (0.05)" in words
    assert "fitted the validation split" not in words


def test_a_regression_is_described_in_the_targets_units() -> None:
    words = said(metric="mse", train=2500, validation=2900, test=2843.567, bounds=(2300, 3500), rows=67, chance=5200)
    assert "the mse is 2844" in words
    assert "The best constant guess gets 5200: 1.83 times as much." in words
    assert "Overfitting" not in words
