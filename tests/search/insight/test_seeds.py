"""Ties among the best trials, and the winner's luck, on runs that are drawn from known distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from search.insight.findings import ExtraRun, Probe
from search.insight.seeds import ALPHA, differ, seed_noise
from tests.search.insight.trials import extra_run, trial


def runs_of(values: dict[int, Sequence[float]]) -> list[ExtraRun]:
    return [
        extra_run(Probe.SEED, number, at + 1, validation=float(value))
        for number, each in values.items()
        for at, value in enumerate(each)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_two_contenders_differ_where_games_and_howells_test_in_scipy_says_so(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = [random.normal(0.1 + 0.008 * at, 0.004 * (1 + at % 3), 5) for at in range(3)]

    theirs = stats.tukey_hsd(*groups, equal_var=False).pvalue

    for one in range(3):
        for other in range(one):
            assert differ(groups[one].tolist(), groups[other].tolist(), 3) is bool(theirs[one, other] < ALPHA)


@cache
def critical_values() -> tuple[Any, Any]:
    """Of the studentized range of five groups, by degrees of freedom."""
    freedom = np.linspace(4, 8, 9)
    return freedom, [stats.studentized_range.isf(ALPHA, 5, each) for each in freedom]


@pytest.mark.parametrize(
    ("spreads", "step"),
    [((0.01,) * 5, None), ((0.005, 0.01, 0.01, 0.01, 0.03), None), ((0.003,) * 4 + (0.03,), None), ((0.01,) * 5, 0.01)],
)
def test_among_equals_a_difference_is_found_at_most_one_time_in_twenty(
    spreads: tuple[float, ...], step: float | None
) -> None:
    """Five with one mean and five runs each, also with unequal noise, and counted on few rows. The critical value of
    each pair is taken from a table of SciPy's; `differ` is asked about a few to hold the table to it."""
    random, count = np.random.default_rng(1), 4000
    runs = random.normal(0.1, 1, (count, 5, 5)) * np.array(spreads)[:, None]
    if step is not None:
        runs = np.round(runs / step) * step
    means, shares = runs.mean(2), runs.var(2, ddof=1) / 5
    best = means.argmin(1)[:, None]
    both = shares + np.take_along_axis(shares, best, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (means - np.take_along_axis(means, best, 1)) / np.sqrt(both / 2)
        freedom = both**2 / ((shares**2 + np.take_along_axis(shares, best, 1) ** 2) / 4)
    critical = np.interp(freedom, *critical_values())
    found = np.where(np.arange(5) == best, False, statistic > critical)

    assert found.any(1).mean() <= 0.05
    for at in np.flatnonzero(np.isfinite(statistic).all(1))[:1]:
        other = (int(best[at, 0]) + 1) % 5
        assert differ(runs[at, best[at, 0]].tolist(), runs[at, other].tolist(), 5) is bool(found[at, other])


def test_a_clear_difference_is_found_and_the_simplest_of_the_tied_is_named() -> None:
    random = np.random.default_rng(0)
    trials = [
        trial(number, validation=0.1 + number / 1000, weights=weights) for number, weights in enumerate((900, 300, 20))
    ]
    values = {0: random.normal(0.105, 0.002, 5), 1: random.normal(0.106, 0.002, 5), 2: random.normal(0.2, 0.002, 5)}

    noise = seed_noise(trials, runs_of({n: v.tolist() for n, v in values.items()}), winner=0)

    assert noise is not None
    assert [each.tied for each in noise.contenders] == [True, True, False]
    assert noise.simplest == 1
    assert noise.best == min((0, 1), key=lambda number: values[number].mean())
    assert noise.std == pytest.approx(math.sqrt(np.mean([each.var(ddof=1) for each in values.values()])))
    assert noise.luck.value == pytest.approx(values[0].mean() - 0.1)


def test_the_interval_of_the_luck_holds_the_truth_about_19_times_in_20() -> None:
    random, inside = np.random.default_rng(0), 0
    winner = [trial(3, validation=0.08)]
    for _ in range(400):
        noise = seed_noise(winner, runs_of({3: random.normal(0.1, 0.01, 5).tolist()}), winner=3)
        assert noise is not None
        inside += noise.luck.low <= 0.02 <= noise.luck.high

    assert 0.92 <= inside / 400 <= 0.98


def test_runs_that_give_the_same_every_time_differ_only_where_their_value_does() -> None:
    assert not differ([0.1] * 5, [0.1] * 5, 2)
    assert differ([0.1] * 5, [0.2] * 5, 2)


def test_without_two_runs_of_the_winner_nothing_is_said() -> None:
    trials = [trial(0, validation=0.1), trial(1, validation=0.2)]

    assert seed_noise(trials, [], winner=0) is None
    assert seed_noise(trials, runs_of({0: [0.1], 1: [0.1, 0.2]}), winner=0) is None
    failed = [extra_run(Probe.SEED, 0, 3, validation=None), extra_run(Probe.SEED, 0, 4, validation=math.nan)]
    assert seed_noise(trials, runs_of({0: [0.1]}) + failed, winner=0) is None
    alone = seed_noise(trials, runs_of({0: [0.1, 0.12]}), winner=0)
    assert alone is not None and alone.simplest == alone.best == 0
