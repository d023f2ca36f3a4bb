"""The dispatcher, on a real database, with real trainers in this process as its workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from search.checkpoint import BestNetwork
from storage.records import StudyState, TrialRecord, TrialState
from tests.search.dispatched import Study, alone, told
from tests.search.in_process_pool import InProcessPool
from trainer.work import SegmentResult, TrialWork

# The whole budget


def test_every_trial_is_recorded_as_the_trainer_alone_gives_it(study: Callable[..., Study]) -> None:
    work = study()
    work.work(InProcessPool())

    trials = work.trials()
    assert [trial.number for trial in trials] == list(range(6))
    for trial in trials:
        expected = alone(work, trial)
        assert trial.state is TrialState.COMPLETE
        assert (trial.train, trial.validation) == (expected.train, expected.validation)
        assert (trial.epochs, trial.best_epoch, trial.weights) == (9, expected.best_epoch, expected.weight_count)
        assert (trial.worker, trial.error) == ("worker-1", None)
        rows = work.epochs(trial.number)
        assert [(r.epoch, r.train_metric, r.validation_metric) for r in rows] == [
            (e.epoch, e.train_metric, e.validation_metric) for e in expected.epochs
        ]
    assert work.store.pending_facts(work.id) == 6  # MLflow is told of each, once


def test_optunas_reader_finds_the_same_trials_values_and_steps(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "asha"}, budget={"trials": 12})
    work.work(InProcessPool(2))

    trials, theirs = work.trials(), work.optuna().trials
    assert {TrialState.COMPLETE, TrialState.PRUNED} == set(work.states())
    assert len(theirs) == len(trials) == 12
    for ours, frozen in zip(trials, theirs, strict=True):
        assert frozen.state.name == ours.state.name
        assert frozen.params.items() <= ours.params.items()
        steps = {row.epoch: row.validation_metric for row in work.epochs(ours.number)}
        assert frozen.intermediate_values == steps
        assert frozen.value == (ours.validation if ours.state is TrialState.COMPLETE else steps[max(steps)])
    best = min((t.validation, t.number) for t in trials if t.state is TrialState.COMPLETE and t.validation is not None)
    assert (work.optuna().best_value, work.optuna().best_trial.number) == best


def test_with_one_worker_the_same_seed_gives_the_same_trials(study: Callable[..., Study]) -> None:
    one, again, other = (
        study(search={"sampler": "tpe", "pruner": "asha"}, budget={"trials": 16}, seed=seed) for seed in (3, 3, 4)
    )
    for each in (one, again, other):
        each.work(InProcessPool())

    assert told(one.trials()) == told(again.trials())
    assert [t.params for t in one.trials()] != [t.params for t in other.trials()]


def test_each_worker_has_two_trials_in_flight_and_never_more(study: Callable[..., Study]) -> None:
    work, seen = study(budget={"trials": 9}), []

    class Watched(InProcessPool):
        def collect(self, timeout: float) -> Any:
            seen.append([self.outstanding(worker) for worker in range(self.size)])
            return super().collect(timeout)

    pool = Watched(2)
    work.work(pool)

    assert seen[0] == [2, 2]
    assert max(max(each) for each in seen) == 2
    assert len(pool.submitted) == 9


def test_larger_studies_are_given_out_in_packs_and_at_most_a_quarter_is_in_flight(study: Callable[..., Study]) -> None:
    work, flying = study(budget={"trials": 24}), []

    class Watched(InProcessPool):
        def collect(self, timeout: float) -> Any:
            flying.append(sum(len(works) for pending in self._pending for works in pending))
            return super().collect(timeout)

    pool = Watched(2)
    work.work(pool)

    assert work.states() == [TrialState.COMPLETE] * 24
    sizes = [size for _, size in pool.packs]
    assert sizes[:6] == [3] * 6
    assert sizes[6:] == sorted(sizes[6:], reverse=True)  # towards the end each worker gets its share of what is left
    assert max(flying) == 6


def test_the_numbers_do_not_depend_on_the_packs(study: Callable[..., Study]) -> None:
    packed = study(search={"sampler": "random"}, budget={"trials": 16})
    pool = InProcessPool()
    packed.work(pool)

    assert max(size for _, size in pool.packs) == 4
    for trial in packed.trials():
        expected = alone(packed, trial)
        assert (trial.train, trial.validation) == (expected.train, expected.validation)


def test_survivors_of_a_pack_are_joined_with_new_trials_into_the_next(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "asha"}, budget={"trials": 24, "epochs": 27})
    pool = InProcessPool()
    work.work(pool)

    looks = {work.until for _, work in pool.submitted}
    assert looks == {1, 3, 9, 27}
    start, mixed = 0, 0
    for _, size in pool.packs:
        untils = {each.until for _, each in pool.submitted[start : start + size]}
        start, mixed = start + size, mixed + (len(untils) > 1)
    assert mixed > 0
    assert {TrialState.COMPLETE, TrialState.PRUNED} == set(work.states())
    for trial in work.trials():
        expected = [epoch.validation_metric for epoch in alone(work, trial).epochs]
        assert [row.validation_metric for row in work.epochs(trial.number)] == expected[: trial.epochs]


def test_a_trial_that_brings_workers_down_is_found_by_halving_its_pack(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 16})
    pool = InProcessPool()
    pool.deadly = lambda each: each.trial == 1
    work.work(pool)

    assert [trial.number for trial in work.trials() if trial.state is not TrialState.COMPLETE] == [1]
    given = [each.trial for _, each in pool.submitted]
    # It dies in a pack of four, of two, and three times by itself; its neighbour goes with it twice.
    assert [given.count(trial) for trial in (0, 1)] == [3, 5]


def test_a_network_is_not_trained_twice(study: Callable[..., Study]) -> None:
    """Four networks in all: of sixteen trials, twelve get the result of another."""
    fixed = {"neurons": [4, 8], "activation": ["relu", "tanh"], "learning_rate": 0.01, "optimizer": "adam"}
    fixed |= {"layers": 1, "weight_decay": 0, "dropout": 0, "batch_norm": False, "schedule": "constant"}
    work = study(search={"sampler": "tpe", "pruner": "none"}, space=fixed, budget={"trials": 16})
    pool = InProcessPool()
    work.work(pool)

    first: dict[str, TrialRecord] = {}
    for trial in work.trials():
        same = first.setdefault(str(trial.params), trial)
        assert (trial.state, trial.train, trial.validation) == (same.state, same.train, same.validation)
        assert (trial.best_epoch, trial.weights) == (same.best_epoch, same.weights)
        figures = [
            [(row.epoch, row.train_loss, row.validation_metric) for row in work.epochs(each.number)]
            for each in (trial, same)
        ]
        assert figures[0] == figures[1]
    assert len(first) == 4
    assert sorted(each.trial for _, each in pool.submitted) == sorted(trial.number for trial in first.values())
    assert [frozen.state.name for frozen in work.optuna().trials] == ["COMPLETE"] * 16
    assert work.store.pending_facts(work.id) == 16


def test_no_more_trials_than_asked_for_even_with_many_workers(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 3})
    work.work(InProcessPool(4))
    assert work.states() == [TrialState.COMPLETE] * 3


def test_a_grid_ends_with_its_last_combination(study: Callable[..., Study]) -> None:
    fixed = {"neurons": [4, 8], "activation": ["relu", "tanh"], "learning_rate": 0.01, "optimizer": "adam"}
    fixed |= {"weight_decay": 0, "dropout": 0, "batch_norm": False, "schedule": "constant"}
    work = study(search={"sampler": "grid"}, space=fixed, budget={"trials": 50})
    work.work(InProcessPool())

    tried = {(trial.params["neurons_1"], trial.params["activation"]) for trial in work.trials()}
    assert len(work.trials()) == 4
    assert tried == {(n, a) for n in (4, 8) for a in ("relu", "tanh")}


# Pruning


def test_a_pruned_trial_ends_at_a_decision_epoch_and_workers_forget_what_has_ended(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "asha"}, budget={"trials": 12, "epochs": 27})
    pool = InProcessPool()
    work.work(pool)

    pruned = [trial for trial in work.trials() if trial.state is TrialState.PRUNED]
    assert pruned
    assert {trial.epochs for trial in pruned} <= {1, 3, 9}
    assert sorted(pool.forgotten) == [(0, trial.number) for trial in work.trials()]
    for trial in pruned:
        rows = work.epochs(trial.number)
        assert len(rows) == trial.epochs
        assert trial.validation == min(row.validation_metric for row in rows)


# The best


def test_the_weights_that_are_kept_are_those_of_the_best_trial(study: Callable[..., Study]) -> None:
    work = study()
    work.work(InProcessPool(2))

    best = min(work.trials(), key=lambda trial: (trial.validation, trial.number))
    kept = work.checkpoint.best
    assert kept is not None
    assert (kept.trial, kept.validation) == (best.number, best.validation)
    expected = alone(work, best).weights
    assert expected is not None
    assert set(kept.weights) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(kept.weights[name], array)


def test_of_equally_good_trials_the_one_with_the_lower_number_is_the_best_whichever_ends_first(
    study: Callable[..., Study],
) -> None:
    """Two workers; trial 1 is made to die and run again, so that it ends after trial 3."""
    work = study(budget={"trials": 4})
    pool, deaths = InProcessPool(2), []

    def deadly(each: TrialWork) -> bool:
        deaths.append(each.trial)
        return each.trial == 1 and deaths.count(1) <= 2

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        return dataclasses.replace(result, validation=5.0 if each.trial in (1, 2) else 6.0)

    pool.deadly, pool.change = deadly, change
    proposals = work.work(pool)

    ended = sorted(work.trials(), key=lambda trial: str(trial.ended_at))
    assert [trial.number for trial in ended].index(1) > [trial.number for trial in ended].index(2)
    assert proposals.best() == (1, 5.0)
    kept = work.checkpoint.best
    assert kept is not None
    assert kept.trial == 1
    assert work.shown[-1].best_trial == 1
    assert work.shown[-1].best_params == work.trials()[1].params


def test_weights_of_another_databases_study_in_the_same_folder_do_not_win(study: Callable[..., Study]) -> None:
    work = study()
    foreign = BestNetwork(trial=2, validation=-1.0, weights={"x": np.zeros(3, np.float32)})
    work.checkpoint.keep(foreign)

    work.work(InProcessPool())

    kept = work.checkpoint.best
    assert kept is not None
    assert kept.validation == min(trial.validation for trial in work.trials() if trial.validation is not None)


def test_weights_of_an_earlier_claim_are_kept_until_better_ones_come(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 3})
    claim = work.claim()
    work.work(InProcessPool(), claim)
    work.store.finish(claim, StudyState.FINISHED)
    first = work.checkpoint.best
    assert first is not None
    work.store.requeue(work.id, trials=5)

    pool = InProcessPool()
    pool.change = lambda each, result: dataclasses.replace(result, validation=9.0, weights=None)
    work.work(pool)

    assert [trial.number for trial in work.trials()] == [0, 1, 2, 3, 4]
    assert {each.keep_up_to for _, each in pool.submitted} == {first.validation}
    kept = work.checkpoint.best
    assert kept is not None
    assert (kept.trial, kept.validation) == (first.trial, first.validation)
