"""The decision table: total, the same in any unit, and told in the order in which a practitioner reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.insight.decision import MARGIN, decide
from search.insight.findings import Level, Levels, Probe, Verdict
from search.insight.gains import Gain, gains
from search.insight.levels import wilson
from search.insight.seeds import seed_noise
from tests.search.insight.trials import extra_run, trial
from trainer.work import Metric


def exact(value: float, half: float = 0.0) -> Level:
    return Level(value=value, low=max(0.0, value - half), high=value + half)


def levels_of(
    train: float, validation: float, test: float | None = None, *, half: float = 0.004, chance: float = 0.9, **more: Any
) -> Levels:
    return Levels(
        chance=exact(chance, 0.02),
        simple=more.get("simple"),
        simple_models={},
        human=more.get("human"),
        target=more.get("target"),
        train=exact(train, half),
        validation=exact(validation, half),
        test=None if test is None else exact(test, half),
        split="validation" if test is None else "test",
    )


def gain(size: float, half: float = 0.01, probe: Probe = Probe.NEURONS, train: float = 0.1) -> Gain:
    return Gain(probe=probe, amount=2, train=train, validation=Level(value=size, low=size - half, high=size + half))


NO_GAINS = (gain(0.0, probe=Probe.NEURONS), gain(0.0, probe=Probe.EPOCHS))


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        (levels_of(0.88, 0.9, 0.9), Verdict.NOT_LEARNING),
        (levels_of(0.895, 0.9), Verdict.NOT_LEARNING),
        (levels_of(0.84, 0.84, 0.84), Verdict.NOT_LEARNING),  # less than a tenth under chance
        (levels_of(0.30, 0.31, 0.31, human=0.01), Verdict.UNDERFITTING),
        (levels_of(0.30, 0.31, 0.31, target=0.05), Verdict.UNDERFITTING),
        (levels_of(0.30, 0.40, 0.41, human=0.28), Verdict.OVERFITTING),
        (levels_of(0.01, 0.2, 0.21), Verdict.OVERFITTING),
        (levels_of(0.01, 0.2), Verdict.OVERFITTING),
        (levels_of(0.05, 0.05, 0.25), Verdict.OVER_SEARCHED),
        (levels_of(0.05, 0.06, 0.25, human=0.04), Verdict.OVER_SEARCHED),
        (levels_of(0.02, 0.03, 0.03, human=0.028), Verdict.NOISE_BOUND),
        (levels_of(0.02, 0.05, 0.06, half=0.06), Verdict.NOISE_BOUND),
        (levels_of(0.01, 0.02, 0.02), Verdict.DONE),
        (levels_of(0.01, 0.2, 0.25, target=0.3), Verdict.DONE),
        (levels_of(0.001, 0.011, 0.011, human=0.012), Verdict.DONE),
    ],
)
def test_each_line_of_the_table(levels: Levels, verdict: Verdict) -> None:
    found, reasons = decide(levels, "error")

    assert found is verdict
    assert all(reason.endswith(".") for reason in reasons)


def test_without_a_goal_underfitting_is_what_more_neurons_or_epochs_were_measured_to_win() -> None:
    levels = levels_of(0.3, 0.31, 0.31)

    verdict, reasons = decide(levels, "error", [gain(0.15)])

    assert verdict is Verdict.UNDERFITTING
    assert "2 times the neurons" in reasons[-1]
    assert decide(levels, "error", NO_GAINS)[0] is Verdict.DONE
    assert decide(levels, "error", [gain(0.15, half=0.16)])[0] is Verdict.NOISE_BOUND
    assert decide(levels, "error", [gain(0.15, train=-0.01)])[0] is Verdict.DONE  # it learnt no more: not underfitting


def test_a_simple_model_that_beats_the_training_metric_shows_underfitting() -> None:
    levels = levels_of(0.3, 0.31, 0.31, simple=exact(0.05, 0.01))

    verdict, reasons = decide(levels, "error", NO_GAINS)

    assert verdict is Verdict.UNDERFITTING
    assert "simple model" in reasons[-1]


def test_done_says_what_was_measured_and_what_was_not() -> None:
    assert (
        "Whether more neurons or epochs would help has not been measured" in decide(levels_of(0, 0.01), "error")[1][-1]
    )
    assert (
        "No better for 2 times the neurons or 2 times the epochs"
        in decide(levels_of(0, 0.01), "error", [gain(0.0), gain(0.0, probe=Probe.EPOCHS)])[1][-1]
    )


def test_the_gaps_to_a_goal_add_up_to_what_is_missing_and_the_largest_decides() -> None:
    for train, validation, test in ((0.2, 0.3, 0.35), (0.1, 0.3, 0.45), (0.1, 0.15, 0.4)):
        verdict, _ = decide(levels_of(train, validation, test, half=0.001, target=0.01), "error")
        parts = {
            Verdict.UNDERFITTING: train - 0.01,
            Verdict.OVERFITTING: validation - train,
            Verdict.OVER_SEARCHED: test - validation,
        }
        assert sum(parts.values()) == pytest.approx(test - 0.01)
        assert verdict is max(parts, key=lambda each: parts[each])


values = st.just(0.0) | st.floats(1e-6, 1e6)
"""None so small that halving it twenty times would round it."""


@st.composite
def any_level(draw: st.DrawFn) -> Level:
    value = draw(values)
    return Level(value=value, low=value - min(value, draw(values)), high=value + draw(values))


@st.composite
def any_levels(draw: st.DrawFn) -> Levels:
    test = draw(st.none() | any_level())
    return Levels(
        chance=draw(any_level()),
        simple=draw(st.none() | any_level()),
        simple_models={},
        human=draw(st.none() | values),
        target=draw(st.none() | values),
        train=draw(any_level()),
        validation=draw(any_level()),
        test=test,
        split="validation" if test is None else "test",
    )


def scaled(levels: Levels, factor: float) -> Levels:
    def grown(level: Level | None) -> Any:
        return None if level is None else Level(**{k: v * factor for k, v in dataclasses.asdict(level).items()})

    changes: dict[str, Any] = {
        name: grown(getattr(levels, name)) for name in ("chance", "simple", "train", "validation", "test")
    }
    for name in ("human", "target"):
        goal = getattr(levels, name)
        changes[name] = None if goal is None else goal * factor
    return dataclasses.replace(levels, **changes)


@given(any_levels(), st.integers(-20, 20))
def test_the_table_has_a_verdict_for_any_levels_and_the_same_one_in_any_unit(levels: Levels, power: int) -> None:
    verdict, reasons = decide(levels, "mse")
    assert reasons

    assert decide(scaled(levels, 2.0**power), "mse")[0] is verdict  # powers of two: nothing is rounded


@given(any_levels(), st.floats(0, 1e6))
def test_a_worse_test_metric_never_turns_over_searched_into_something_better(levels: Levels, worse: float) -> None:
    if levels.test is None or decide(levels, "mse")[0] is not Verdict.OVER_SEARCHED:
        return
    test = Level(value=levels.test.value + worse, low=levels.test.low + worse, high=levels.test.high + worse)

    assert decide(dataclasses.replace(levels, test=test), "mse")[0] is Verdict.OVER_SEARCHED


@given(any_levels(), st.floats(0, 1e6))
def test_a_goal_that_was_reached_stays_reached_when_it_is_made_easier(levels: Levels, easier: float) -> None:
    goal = levels.target if levels.target is not None else levels.human
    if goal is None or decide(levels, "mse")[0] is not Verdict.DONE:
        return

    assert decide(dataclasses.replace(levels, target=goal + easier), "mse")[0] is Verdict.DONE


@given(st.floats(0.01, 0.8), st.integers(5, 5000))
def test_with_fewer_rows_a_verdict_only_turns_to_noise(gap: float, rows: int) -> None:
    """A gap that few rows show, more rows of the same shares show as well."""

    def verdict(count: int) -> Verdict:
        parts = [
            Level(value=value, low=wilson(value, count)[0], high=wilson(value, count)[1])
            for value in (0.01, 0.01 + gap)
        ]
        levels = dataclasses.replace(levels_of(0.01, 0.01 + gap), train=parts[0], validation=parts[1])
        return decide(levels, "error")[0]

    few, many = verdict(rows), verdict(4 * rows)
    if few is Verdict.OVERFITTING:
        assert many is Verdict.OVERFITTING and gap >= MARGIN * 0.9
    if many is Verdict.NOISE_BOUND:
        assert few in (Verdict.NOISE_BOUND, Verdict.NOT_LEARNING)


# What extra runs show


def test_a_gain_is_real_only_beyond_rows_and_seeds() -> None:
    winner = trial(7, validation=0.30, train=0.30)
    usual: dict[str, Any] = {"winner": 7, "levels": levels_of(0.3, 0.3), "metric": Metric.ERROR, "rows": 400.0}
    much, little = extra_run(Probe.NEURONS, 7, 2, validation=0.1), extra_run(Probe.EPOCHS, 7, 2, validation=0.27)

    large, small = gains([much, little], seeds=None, **usual)

    assert (large.real, small.real) == (True, False)
    assert large.validation.value == pytest.approx(0.2)
    assert large.words == "2 times the neurons"
    wild = [extra_run(Probe.SEED, 7, at, validation=value) for at, value in enumerate((0.1, 0.5, 0.2, 0.4, 0.3))]
    (noisy,) = gains([much], seeds=seed_noise([winner], wild, winner=7), **usual)
    assert not noisy.real


def test_a_gain_is_taken_from_what_the_winner_gets_from_fresh_seeds() -> None:
    seeds = [extra_run(Probe.SEED, 7, at, validation=0.35 + at / 1000) for at in range(5)]
    noise = seed_noise([trial(7, validation=0.30)], seeds, winner=7)

    (found,) = gains(
        [extra_run(Probe.EPOCHS, 7, 2, validation=0.2)],
        winner=7,
        levels=levels_of(0.3, 0.3),
        metric=Metric.ERROR,
        rows=400,
        seeds=noise,
    )

    assert found.validation.value == pytest.approx(0.352 - 0.2)


def test_runs_that_failed_or_belong_to_another_trial_show_nothing() -> None:
    runs = [
        extra_run(Probe.NEURONS, 7, 2, validation=None),
        extra_run(Probe.NEURONS, 8, 2, validation=0.1),
        extra_run(Probe.ROWS, 7, 0.5, validation=0.1),
    ]

    assert gains(runs, winner=7, levels=levels_of(0.3, 0.3), metric=Metric.ERROR, rows=400, seeds=None) == ()
