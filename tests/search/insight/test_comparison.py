from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from search.insight.comparison import differing, paired_difference, unpaired_difference
from search.insight.findings import Level
from trainer.work import Metric, TestResult


def answers(wrong: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], classes: int = 2) -> TestResult:
    """A network that is wrong on the given rows."""
    said = np.where(wrong, (truth + 1) % classes, truth)
    return TestResult(outputs=np.eye(classes)[said], value=float(wrong.mean()), truth=truth)


def table(both: int, first: int, second: int, neither: int) -> tuple[TestResult, TestResult]:
    """Two classifiers of which so many rows are got wrong by both, by one alone, and by neither."""
    counts = (both, first, second, neither)
    one, other = np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)
    truth = np.zeros(sum(counts), int)
    return answers(one, truth), answers(other, truth)


def test_the_error_is_judged_by_mcnemars_exact_test() -> None:
    found, p_value = paired_difference(Metric.ERROR, *table(9, 21, 6, 164), 0)
    assert p_value == pytest.approx(stats.binomtest(21, 27, 0.5).pvalue)
    assert found.value == pytest.approx(15 / 200)
    assert 0 < found.low < found.value < found.high


def test_the_interval_of_paired_shares_is_newcombes() -> None:
    # His table II, (36, 12, 2, 0) of 50 pairs: method 10 gives 0.0569 to 0.3404.
    found, _ = paired_difference(Metric.ERROR, *table(36, 12, 2, 0), 0)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_equal_networks_cannot_be_told_apart() -> None:
    one, _ = table(5, 0, 0, 95)
    found, p_value = paired_difference(Metric.ERROR, one, one, 0)
    assert (found.value, p_value) == (0, 1)
    assert found.low < 0 < found.high  # few rows never prove that nothing is different


def test_swapping_the_networks_turns_the_sign_and_nothing_else() -> None:
    one, other = table(9, 21, 6, 164)
    for metric in (Metric.ERROR, Metric.BALANCED_ERROR):
        there, sure = paired_difference(metric, one, other, 0)
        back, as_sure = paired_difference(metric, other, one, 0)
        assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
        assert as_sure == pytest.approx(sure, abs=0.01)


def test_the_balanced_error_weighs_each_class_alike() -> None:
    truth = np.repeat([0, 1], [90, 10])
    wrong = np.zeros(100, int)
    wrong[90:95] = 1  # half of the small class
    found, p_value = paired_difference(Metric.BALANCED_ERROR, answers(wrong, truth), answers(0 * wrong, truth), 0)
    assert found.value == pytest.approx(0.25)
    # Five rows that differ, all in one direction: the exact test over all signs is 2 / 2 ** 5.
    assert p_value == pytest.approx(2 / 2**5)


def test_a_paired_comparison_of_squared_errors_agrees_with_the_paired_t_test() -> None:
    random = np.random.default_rng(3)
    truth = random.normal(size=400)
    one, other = truth + 0.5 * random.normal(size=400), truth + 0.55 * random.normal(size=400)
    results = [TestResult(outputs=each, value=math.nan, truth=truth) for each in (one, other)]
    found, p_value = paired_difference(Metric.MSE, results[0], results[1], 0)
    gaps = (one - truth) ** 2 - (other - truth) ** 2
    oracle = stats.ttest_1samp(gaps, 0)
    interval = oracle.confidence_interval()
    assert found.value == pytest.approx(gaps.mean())
    assert p_value == pytest.approx(oracle.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx(
        (interval.low, interval.high), abs=0.1 * (interval.high - interval.low)
    )


def test_many_rows_are_judged_as_if_they_were_normal() -> None:
    random = np.random.default_rng(4)
    truth = np.zeros(20_000)
    one, other = random.normal(size=20_000), random.normal(size=20_000)
    results = [TestResult(outputs=each, value=math.nan, truth=truth) for each in (one, other)]
    found, p_value = paired_difference(Metric.MAE, results[0], results[1], 0)
    oracle = stats.ttest_1samp(abs(one) - abs(other), 0)
    interval = oracle.confidence_interval()
    assert p_value == pytest.approx(oracle.pvalue, rel=0.02)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


def test_a_winner_is_seldom_named_where_there_is_none() -> None:
    """Under the null the p-value is under 0.05 in at most about one of twenty cases."""
    random = np.random.default_rng(5)
    named = 0
    for _ in range(400):
        truth = np.zeros(120, int)
        one, other = (answers(random.random(120) < 0.1, truth) for _ in range(2))
        named += paired_difference(Metric.ERROR, one, other, 0)[1] < 0.05
    assert named <= stats.binom.ppf(0.999, 400, 0.05)


def test_separate_rows_give_a_wider_interval_than_the_same_rows() -> None:
    one, other = table(30, 10, 2, 158)
    paired, _ = paired_difference(Metric.ERROR, one, other, 0)
    levels = []
    for result in (one, other):
        bounds = stats.binomtest(int(200 * result.value), 200).proportion_ci(method="wilson")
        levels.append(Level(value=result.value, low=bounds.low, high=bounds.high))
    unpaired, p_value = unpaired_difference(levels[0], levels[1])
    assert unpaired.high - unpaired.low > paired.high - paired.low
    assert (p_value < 0.05) == (unpaired.low > 0 or unpaired.high < 0)


def test_levels_without_a_gap_are_not_told_apart() -> None:
    same = Level(value=0.1, low=0.1, high=0.1)
    assert unpaired_difference(same, same)[1] == 1
    assert unpaired_difference(same, Level(value=0.2, low=0.2, high=0.2))[1] == 0


def test_only_what_two_study_files_have_differently_is_listed() -> None:
    first = {"name": "a", "seed": 0, "space": {"dropout": 0.1, "layers": {"low": 1, "high": 4}}, "human": 0.01}
    second = {"name": "b", "seed": 0, "space": {"dropout": 0.2, "layers": {"low": 1, "high": 4}}}
    assert differing(first, second) == {"space.dropout": (0.1, 0.2), "human": (0.01, None)}
