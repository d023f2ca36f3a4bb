"""What more trials are expected to gain, the noise that this is held against, and the studies that it ends."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.budget import StoppedFor
from search.no_gain import LEAST, STANDS, Noise, expected_gain, mean_least, no_gain, seeds_noise
from storage.records import ExtraRun, Probe, StudyState
from tests.search.dispatched import Study
from tests.search.in_process_pool import InProcessPool
from trainer.work import Metric, SegmentResult, TrialWork

MakeStudy = Callable[..., Study]

# The expected gain


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.data())
def test_the_mean_least_is_that_of_all_draws(values: list[float], data: st.DataObject) -> None:
    draws = data.draw(st.integers(1, len(values)))
    every = [min(drawn) for drawn in itertools.combinations(values, draws)]
    assert mean_least(np.sort(values), draws) == pytest.approx(statistics.mean(every), abs=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=LEAST, max_size=60), st.floats(0, 500), st.floats(0.001, 1000))
def test_the_gain_is_in_the_metrics_units_and_grows_with_the_trials_to_come(
    values: list[float], left: float, scale: float
) -> None:
    gain = expected_gain(values, left)
    assert 0 <= gain <= min(values)
    assert expected_gain(values, 2 * left) >= gain
    assert expected_gain([scale * value for value in values], left) == pytest.approx(scale * gain, abs=1e-9 * scale)
    assert expected_gain(values, 0) == 0


def test_of_values_that_come_at_random_it_is_no_less_than_the_true_gain_and_within_ten_times_that() -> None:
    rng = np.random.default_rng(0)
    # The least of so many is 1 / (n + 1) away from the end of the range, or its root.
    for power in (1.0, 0.5):
        true = 2 * np.mean(rng.random((4000, 60)).min(1) ** power - rng.random((4000, 120)).min(1) ** power)
        guessed = [expected_gain(list(1 + 2 * rng.random(60) ** power), 60) for _ in range(400)]
        assert true < np.mean(guessed) < 10 * true


def test_what_still_falls_goes_on_and_what_stands_ends() -> None:
    falling = [1 / (1 + n) for n in range(40)]
    standing = [0.3 + 0.001 * (n % 7) for n in range(40)]
    assert not no_gain(falling, 160, noise=0.01)
    assert no_gain(standing, 160, noise=0.01)


def test_nothing_is_said_of_a_few_trials() -> None:
    first = next(count for count in range(100) if no_gain([0.5] * count, 100, noise=0.1))
    assert int(STANDS * first) == LEAST


def test_what_has_just_come_to_a_stand_goes_on_for_a_while() -> None:
    falling = [1 / (1 + n) for n in range(40)]
    ends = [count for count in range(400) if no_gain([*falling, *[0.5] * count], 160, noise=0.01)]
    assert ends == list(range(ends[0], 400))
    assert ends[0] > 40


def test_nothing_is_better_than_no_error_at_all() -> None:
    assert no_gain([*np.linspace(1, 0, LEAST), *np.linspace(1, 0, 5)], 10_000, noise=0.0)


# The noise


def test_the_noise_of_an_error_is_the_binomials() -> None:
    rng = np.random.default_rng(0)
    shares = rng.binomial(2000, 0.1, 5000) / 2000
    assert Noise(metric=Metric.ERROR, rows=2000).at(0.1) == pytest.approx(shares.std(), rel=0.05)
    assert Noise(metric=Metric.ERROR, rows=100).at(0.0) > 0


@pytest.mark.parametrize(("metric", "power"), [(Metric.MSE, 2), (Metric.MAE, 1)])
def test_the_noise_of_a_regression_is_that_of_normal_residuals(metric: Metric, power: int) -> None:
    losses = np.abs(np.random.default_rng(0).normal(0, 3, (5000, 200))) ** power
    values = losses.mean(1)
    assert Noise(metric=metric, rows=200).at(float(values.mean())) == pytest.approx(values.std(), rel=0.05)


def test_the_noise_of_a_log_loss_is_that_of_exponential_losses() -> None:
    values = np.random.default_rng(0).exponential(0.2, (5000, 200)).mean(1)
    assert Noise(metric=Metric.LOG_LOSS, rows=200).at(0.2) == pytest.approx(values.std(), rel=0.05)


def run(trial: int, amount: float, validation: float | None, probe: Probe = Probe.SEED) -> ExtraRun:
    return ExtraRun(
        probe=probe,
        trial=trial,
        amount=amount,
        settings={},
        seed=0,
        train=validation,
        validation=validation,
        rows=10,
        epochs=3,
        seconds=0.0,
        weights=1,
    )


def test_other_seeds_add_what_they_differ_by() -> None:
    values = {3: [0.1, 0.2, 0.3], 8: [0.5, 0.4]}
    runs = [run(trial, n, value) for trial, own in values.items() for n, value in enumerate(own)]
    pooled = (sum(statistics.variance(own) * (len(own) - 1) for own in values.values()) / 3) ** 0.5
    noise = seeds_noise([*runs, run(3, 9, None), run(3, 2.0, 7.0, Probe.EPOCHS), run(4, 1, 5.0)])
    assert noise == pytest.approx(pooled)
    assert seeds_noise([run(4, 1, 5.0)]) == seeds_noise([]) == 0
    alone, both = (Noise(metric=Metric.ERROR, rows=100, seeds=seeds).at(0.2) for seeds in (0.0, 0.3))
    assert both**2 == pytest.approx(alone**2 + 0.3**2)


# Studies


def all_alike(each: TrialWork, result: SegmentResult) -> SegmentResult:
    return dataclasses.replace(result, validation=0.5)


@pytest.fixture
def dull(study: MakeStudy) -> Callable[..., Study]:
    """A study all of whose trials end alike."""

    def make(**budget: Any) -> Study:
        return study(budget={"trials": 60, "epochs": 1, **budget})

    return make


def worked(work: Study) -> Study:
    pool = InProcessPool()
    pool.change = all_alike
    work.work(pool)
    return work


def test_a_study_whose_trials_gain_nothing_ends_early_where_that_was_asked_for(dull: MakeStudy) -> None:
    plain, stopping = worked(dull()), worked(dull(stop_when="no_gain"))

    assert (len(plain.trials()), plain.stopped_for) == (60, None)
    # A pack of up to 15 was under way.
    assert LEAST / STANDS <= len(stopping.trials()) <= LEAST / STANDS + 16
    assert stopping.stopped_for is StoppedFor.NO_GAIN


def test_a_study_that_has_ended_so_does_not_go_on_when_it_is_resumed(dull: MakeStudy) -> None:
    work = dull(stop_when="no_gain")
    claim = work.claim()
    pool = InProcessPool()
    pool.change = all_alike
    work.work(pool, claim)
    count = len(work.trials())
    work.store.finish(claim, StudyState.FINISHED)
    work.store.requeue(work.id)
    worked(work)
    assert len(work.trials()) == count
    assert work.stopped_for is StoppedFor.NO_GAIN


def test_target_and_minutes_are_named_where_they_ended_it(dull: MakeStudy) -> None:
    assert worked(dull(target=0.6)).stopped_for is StoppedFor.TARGET
    assert worked(dull(trials=3, target=0.4)).stopped_for is None
    late = dull(minutes=1)
    late.work(InProcessPool(), started=-1e9)
    assert late.stopped_for is StoppedFor.MINUTES
    assert len(late.trials()) == 1
