"""Which extra runs a report is worth: never more than the time allows, the same in any order, nothing twice."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.insight.extra_plan import (
    CONTENDERS,
    LEAST_SEEDS,
    SEEDS,
    SHARE_OF_TIME,
    Plan,
    Planned,
    allowance,
    contenders,
    plan,
    seconds_of,
    widened,
    words,
)
from search.spec import StudySpec
from storage.records import ExtraRun, Probe, TrialRecord, TrialState
from tests.search.insight.samples import START, sample_study
from tests.trainer.trainer_cases import settings_of
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.settings import ConvLayer, Family, Pool, Settings

SPEC = StudySpec.from_mapping({"name": "iris", "data": {"source": "iris"}, "budget": {"epochs": 10}})
NETWORK = settings_of(neurons=(16, 8), momentum=0.0)


@pytest.fixture(scope="module")
def iris() -> Dataset:
    return load(DataRequest(source="iris"))


def trial(number: int, validation: float | None = None, seconds: float = 2.0, **changes: Any) -> TrialRecord:
    record = TrialRecord(
        number=number,
        state=TrialState.COMPLETE,
        params={},
        settings=replace(NETWORK, learning_rate=0.01 * (number + 1)).to_json(),
        seed=number,
        train=0.0,
        validation=0.1 + number / 100 if validation is None else validation,
        epochs=10,
        best_epoch=5,
        seconds=seconds,
        weights=100,
        worker="worker-1",
        error=None,
        started_at=START,
        ended_at=START,
    )
    return replace(record, **changes)


def made(run: Planned, seconds: float | None = None) -> ExtraRun:
    return ExtraRun(
        probe=run.probe,
        trial=run.trial,
        amount=run.amount,
        settings=run.settings.to_json(),
        seed=run.seed,
        train=0.1,
        validation=0.1,
        rows=100,
        epochs=run.epochs,
        seconds=run.seconds if seconds is None else seconds,
        weights=100,
    )


def names(runs: tuple[Planned, ...]) -> list[str]:
    return [run.name for run in runs]


def test_with_time_enough_all_is_trained_in_the_order_of_worth(iris: Dataset) -> None:
    trials = [trial(number) for number in range(7)]
    found = plan(trials, SPEC, (), iris, winner=0)
    assert names(found.runs)[:4] == [
        *("50 % of the rows of trial 0", "25 % of the rows of trial 0"),
        *("2 times the neurons of trial 0", "2 times the epochs of trial 0"),
    ]
    assert names(found.runs)[4:] == [f"seed {seed} of trial {each}" for seed in range(1, 6) for each in range(5)]
    assert found.left_out == ()
    assert [run.epochs for run in found.runs[:4]] == [10, 10, 10, 20]
    assert found.runs[2].settings.neurons == (32, 16)


def test_seeds_are_of_their_own_and_the_same_each_time(iris: Dataset) -> None:
    trials = [trial(number) for number in range(5)]
    runs = plan(trials, SPEC, (), iris, winner=0).runs
    seeded = [run.seed for run in runs if run.probe is Probe.SEED]
    assert len(set(seeded)) == len(seeded)
    assert len({run.seed for run in runs} - set(seeded)) == 1
    assert plan(trials, SPEC, (), iris, winner=0).runs == runs
    others = plan(trials, SPEC.model_copy(update={"seed": 1}), (), iris, winner=0).runs
    assert not {run.seed for run in others} & {run.seed for run in runs}


def test_the_chosen_winner_comes_first_though_another_is_better(iris: Dataset) -> None:
    runs = plan([trial(number) for number in range(6)], SPEC, (), iris, winner=3).runs
    assert {run.trial for run in runs if run.probe is not Probe.SEED} == {3}
    assert [run.trial for run in runs if run.probe is Probe.SEED][:CONTENDERS] == [3, 0, 1, 2, 4]


def test_twins_are_trained_once(iris: Dataset) -> None:
    trials = [replace(trial(number), settings=trial(number // 2).settings) for number in range(6)]
    assert [each.number for each in contenders(trials, winner=0)] == [0, 2, 4]
    stored = [replace(each, settings={**each.settings, "neurons": [16, 8]}) for each in trials]  # as JSON comes back
    assert [each.number for each in contenders(stored, winner=0)] == [0, 2, 4]


def test_only_what_is_asked_for_is_planned(iris: Dataset) -> None:
    found = plan([trial(0), trial(1)], SPEC, (), iris, winner=0, probes=[Probe.SEED])
    assert {run.probe for run in found.runs} == {Probe.SEED}
    assert len(found.runs) == 2 * SEEDS


def test_no_complete_trial_is_no_plan(iris: Dataset) -> None:
    pruned = [replace(trial(0), state=TrialState.PRUNED), trial(1, state=TrialState.FAILED, validation=None)]
    assert plan(pruned, SPEC, (), iris, winner=0) == Plan(runs=(), left_out=())


def test_what_does_not_fit_makes_way_for_what_does(iris: Dataset) -> None:
    # The rows take 1 + 0.5 s, the epochs 4; then 2 seconds a seed.
    found = plan([trial(0), trial(1)], SPEC, (), iris, winner=0, seconds=1.6)
    assert names(found.runs) == ["50 % of the rows of trial 0", "25 % of the rows of trial 0"]
    rows_and_seeds = [made(run) for run in plan([trial(0)], SPEC, (), iris, winner=0).runs if run.probe is Probe.ROWS]
    found = plan([trial(0)], SPEC, rows_and_seeds, iris, winner=0, seconds=3.9)
    assert "2 times the epochs of trial 0" in names(found.left_out)


@pytest.mark.parametrize(
    ("seconds", "trials", "runs"), [(20.0, 5, 10), (19.9, 4, 9), (8.0, 2, 4), (4.1, 1, 2), (3.9, 0, 0)]
)
def test_rather_fewer_trials_than_one_seed_of_each(seconds: float, trials: int, runs: int, iris: Dataset) -> None:
    found = plan([trial(number) for number in range(5)], SPEC, (), iris, winner=0, seconds=seconds, probes=[Probe.SEED])
    assert (len({run.trial for run in found.runs}), len(found.runs)) == (trials, runs)


def test_workers_side_by_side_have_the_time_of_all_but_for_runs_on_fewer_rows(iris: Dataset) -> None:
    trials = [trial(number, worker=f"worker-{number % 4}") for number in range(8)]
    found = plan(trials, SPEC, (), iris, winner=0)
    told = {run.name: run.seconds for run in found.runs}
    runs = [made(run) for run in found.runs]
    rows = told["50 % of the rows of trial 0"] + told["25 % of the rows of trial 0"]
    assert seconds_of(runs, trials) == pytest.approx(rows + (sum(told.values()) - rows) / 4)


def test_time_is_told_from_the_trials_own(iris: Dataset) -> None:
    """Of trials whose time is what a step and an operation cost, times any number, each is foretold exactly."""
    fast, slow = 1e-3, 1e-9

    def taken(network: Settings, epochs: int) -> float:
        steps = epochs * math.ceil(len(iris.train) / network.batch_size)
        flops = 6 * (4 * network.neurons[0] + network.neurons[0] * network.neurons[1] + network.neurons[1] * 3)
        return fast * steps + slow * flops * len(iris.train) * epochs

    trials = []
    for number, (width, size, epochs) in enumerate(itertools.product((8, 64, 256), (16, 64), (3, 10))):
        network = replace(NETWORK, neurons=(width, width), batch_size=size)
        trials.append(trial(number, settings=network.to_json(), epochs=epochs, seconds=taken(network, epochs)))
    for chosen in (0, 5, 11):
        runs = {run.name: run for run in plan(trials, SPEC, (), iris, winner=chosen).runs}
        network = Settings.from_json(trials[chosen].settings)
        expected = {
            "50 % of the rows": taken(network, 10) / 2,
            "2 times the neurons": taken(widened(network, 2), 10),
            "2 times the epochs": taken(network, 20),
            "seed 1": taken(network, 10),
        }
        for name, seconds in expected.items():
            assert runs[f"{name} of trial {chosen}"].seconds == pytest.approx(seconds, rel=1e-6)


def test_a_trial_without_a_time_of_its_own_is_told_from_the_others(iris: Dataset) -> None:
    trials = [trial(0, seconds=0.0), trial(1), trial(2)]
    runs = plan(trials, SPEC, (), iris, winner=0).runs
    assert runs[0].seconds == pytest.approx(1.0)


def test_the_allowance_is_a_fifth_of_the_studys_own_time() -> None:
    trials = [trial(number, seconds=30.0, worker=f"worker-{number % 2}") for number in range(4)]
    assert allowance(sample_study(worked=100.0), trials) == SHARE_OF_TIME * 100
    assert allowance(sample_study(worked=10.0, result={"seconds": 80.0}), trials) == SHARE_OF_TIME * 80
    assert allowance(sample_study(worked=10.0, result=None), trials) == SHARE_OF_TIME * 60
    assert allowance(sample_study(worked=0.0, result=None), []) == 0


def test_filters_are_doubled_as_well() -> None:
    layer = ConvLayer(filters=8, filter_size=3, stride=1, pool=Pool.MAX)
    network = widened(replace(NETWORK, family=Family.CNN, convolutions=(layer,)), 2)
    assert network.convolutions == (replace(layer, filters=16),)
    assert network.neurons == (32, 16)


def test_what_is_left_out_is_said_with_its_time_and_its_remedy(iris: Dataset) -> None:
    trials = [trial(number, seconds=60.0) for number in range(3)]
    told = words(plan(trials, SPEC, (), iris, winner=0, seconds=0).left_out, "digits@2")
    remedy = "(`neurosweep report digits@2 --thorough` makes up for it)"
    assert len(told) == 4
    assert told[0] == ("50 % of the rows of trial 0 and 25 % of the rows of trial 0: about 45 s of training " + remedy)
    assert told[2] == f"2 times the epochs of trial 0: about 2 min of training {remedy}"
    assert told[3] == f"15 runs from other seeds, of the trials 0, 1, 2: about 15 min of training {remedy}"
    assert words((), "digits") == ()


@st.composite
def studies(draw: st.DrawFn) -> list[TrialRecord]:
    count = draw(st.integers(1, 12))
    found = []
    for number in range(count):
        width, size = draw(st.sampled_from([4, 32, 500])), draw(st.sampled_from([16, 64]))
        network = replace(NETWORK, neurons=(width, 8), batch_size=size, learning_rate=draw(st.sampled_from([0.1, 0.2])))
        state = draw(st.sampled_from([TrialState.COMPLETE] * 3 + [TrialState.PRUNED]))
        seconds = draw(st.one_of(st.just(0.0), st.floats(1e-3, 1e4)))
        found.append(
            trial(
                number,
                draw(st.floats(0, 1)),
                seconds,
                settings=network.to_json(),
                state=state,
                epochs=draw(st.integers(1, 10)),
                worker=f"worker-{draw(st.integers(1, 4))}",
            )
        )
    return found


@given(trials=studies(), share=st.floats(0, 1.2), seed=st.integers(0, 9), data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_plan_is_over_the_limit_and_each_is_whole(
    iris: Dataset, trials: list[TrialRecord], share: float, seed: int, data: st.DataObject
) -> None:
    done = random.Random(seed)
    complete = [each.number for each in trials if each.state is TrialState.COMPLETE]
    assume(complete)
    winner = data.draw(st.sampled_from(complete))
    everything = plan(trials, SPEC, (), iris, winner=winner)
    assert everything.left_out == ()
    known = [made(run, run.seconds * done.uniform(0.2, 3)) for run in everything.runs if done.random() < 0.3]
    limit = share * seconds_of([made(run) for run in everything.runs], trials)

    found = plan(trials, SPEC, known, iris, winner=winner, seconds=limit)

    assert seconds_of([made(run) for run in found.runs], trials) <= limit * (1 + 1e-9)
    keys = {(run.probe, run.trial, run.amount) for run in known}
    wanted = [run for run in everything.runs if (run.probe, run.trial, run.amount) not in keys]
    assert sorted(names(found.runs) + names(found.left_out)) == sorted(names(tuple(wanted)))
    shuffled = done.sample(trials, len(trials))
    assert plan(shuffled, SPEC, known, iris, winner=winner, seconds=limit).runs == found.runs


@given(trials=studies(), share=st.floats(0, 1.2))
@settings(max_examples=60, deadline=None)
def test_the_seeds_of_a_first_plan_are_in_balance(iris: Dataset, trials: list[TrialRecord], share: float) -> None:
    chosen = contenders(trials, winner=0)
    everything = plan(trials, SPEC, (), iris, winner=0, probes=[Probe.SEED])
    limit = share * seconds_of([made(run) for run in everything.runs], trials)
    runs = plan(trials, SPEC, (), iris, winner=0, seconds=limit, probes=[Probe.SEED]).runs
    counts = [sum(run.trial == each.number for run in runs) for each in chosen]
    taken = [count for count in counts if count]
    assert counts == sorted(counts, reverse=True)  # the best before the others
    if taken:
        assert min(taken) >= LEAST_SEEDS
        assert max(taken) - min(taken) <= 1
    assert not np.isnan(limit)
