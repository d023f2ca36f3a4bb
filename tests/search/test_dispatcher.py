"""The dispatcher, on a real database, with real trainers in this process as its workers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from neurosweep.errors import LeaseLostError
from search import dispatcher as dispatcher_module
from search.checkpoint import BestNetwork, Checkpoint
from search.checkpoint_store import CheckpointStore
from search.dispatcher import Dispatcher, Signals
from search.progress import Progress
from search.spec import StudySpec
from search.study import Proposals
from storage.records import Claim, EpochRow, NewStudy, StudyState, TrialRecord, TrialState
from storage.store import Store
from tests.search.in_process_pool import InProcessPool, packing
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, Outcome, SegmentResult, TrialWork
from trainer.worker import Trainer


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(DataRequest(source="iris"))


class Study:
    """One study in a database of its own, and whoever works on it."""

    def __init__(self, folder: Path, data: Dataset, **changes: Any) -> None:
        budget = {"trials": 6, "epochs": 9, **changes.pop("budget", {})}
        search = {"sampler": "random", "pruner": "none", **changes.pop("search", {})}
        space = {"layers": 1, "neurons": {"low": 4, "high": 16}, "batch_size": 32, **changes.pop("space", {})}
        mapping = {
            "name": "iris",
            "data": {"source": "iris"},
            "metric": "log_loss",
            "budget": budget,
            "search": search,
            "space": space,
            **changes,
        }
        self.spec = StudySpec.from_mapping(mapping).resolved(data.task)
        self.data = data
        self.folder = folder
        self.url = f"sqlite:///{folder}/n.db"
        self.store = Store.open(self.url)
        new = NewStudy(name="iris", spec=self.spec.to_mapping(), text="", trials=self.spec.budget.trials)
        self.id = self.store.submit(new).id
        self.shown: list[Progress] = []
        self.stop = False
        self.cancel = False

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(CheckpointStore(str(self.folder)))

    def claim(self) -> Claim:
        claim = self.store.claim("dispatcher", study_id=self.id)
        assert claim is not None
        return claim

    def work(
        self,
        pool: InProcessPool,
        claim: Claim | None = None,
        renew: Callable[[], None] = lambda: None,
        started: float | None = None,
    ) -> Proposals:
        """What the engine does between the claim and the study's end."""
        claim = claim or self.claim()
        pool.load(self.data)
        proposals = Proposals(self.spec, self.data.input_shape, "iris", self.store.optuna_trials(self.id))
        dispatcher = Dispatcher(
            claim=claim,
            spec=self.spec,
            metric=Metric(self.spec.metric or ""),
            store=self.store,
            pool=pool,
            proposals=proposals,
            checkpoint=self.checkpoint,
            packing=packing(claim.study.trials, pool, self.data),
            name_worker=lambda worker: f"worker-{worker + 1}",
            known=self.store.trials(self.id),
            known_epochs=[row for trial in self.running() for row in self.epochs(trial)],
            on_progress=self.shown.append,
            signals=Signals(stop=lambda: self.stop, cancel=lambda: self.cancel, renew=renew),
            started=time.monotonic() if started is None else started,
        )
        dispatcher.work()
        if self.cancel:
            dispatcher.cancel()
        return proposals

    def trials(self) -> list[TrialRecord]:
        return self.store.trials(self.id)

    def running(self) -> list[int]:
        return [trial.number for trial in self.trials() if trial.state is TrialState.RUNNING]

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials()]

    def epochs(self, trial: int) -> list[EpochRow]:
        return self.store.epochs(self.id, [trial])

    def optuna(self) -> optuna.Study:
        """Read by Optuna itself."""
        return optuna.load_study(study_name="iris", storage=self.url)


@pytest.fixture
def study(tmp_path: Path, data: Dataset) -> Iterator[Callable[..., Study]]:
    made: list[Study] = []

    def make(**changes: Any) -> Study:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Study(folder, data, **changes))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def alone(study: Study, trial: TrialRecord) -> SegmentResult:
    """A trial of the database, trained by nobody's worker from its settings and its seed."""
    data, epochs = study.data, study.spec.budget.epochs
    trainer = Trainer(
        data.train, data.validation, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu"
    )
    work = TrialWork(
        trial=trial.number,
        settings=Settings.from_json(trial.settings),
        seed=trial.seed,
        metric=Metric.LOG_LOSS,
        epochs=epochs,
        until=epochs,
    )
    return trainer.train([work], lambda: False, lambda trial, epoch: None)[0]


def told(trials: list[TrialRecord]) -> list[Any]:
    """All of the trials that does not depend on the clock."""
    return [(t.number, t.params, t.seed, t.state, t.train, t.validation, t.epochs, t.best_epoch) for t in trials]


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


# Failures


def test_a_trial_that_fails_says_why_and_the_others_go_on(study: Callable[..., Study]) -> None:
    work = study(space={"learning_rate": [0.01, 1e30], "optimizer": "sgd"})
    work.work(InProcessPool())

    trials = work.trials()
    assert set(work.states()) == {TrialState.COMPLETE, TrialState.FAILED}
    for trial in trials:
        failed = trial.params["learning_rate"] == 1e30
        assert trial.state is (TrialState.FAILED if failed else TrialState.COMPLETE)
        assert trial.error == ("the loss was not finite in epoch 1" if failed else None)
    assert [frozen.state.name.startswith("FAIL") for frozen in work.optuna().trials] == [
        trial.state is TrialState.FAILED for trial in trials
    ]


def test_a_study_without_one_good_trial_has_no_best_and_keeps_nothing(study: Callable[..., Study]) -> None:
    work = study(space={"learning_rate": 1e30, "optimizer": "sgd"})
    proposals = work.work(InProcessPool())

    assert work.states() == [TrialState.FAILED] * 6
    assert proposals.best() is None
    assert work.checkpoint.best is None
    assert (work.shown[-1].failed, work.shown[-1].best_trial, work.shown[-1].best_value) == (6, None, None)


@pytest.mark.parametrize("odd", [math.nan, math.inf, None])
def test_a_finished_trial_without_a_finite_metric_is_a_failure(study: Callable[..., Study], odd: float | None) -> None:
    work = study(budget={"trials": 2})
    pool = InProcessPool()
    pool.change = lambda each, result: dataclasses.replace(result, validation=odd) if each.trial == 0 else result
    work.work(pool)

    assert work.states() == [TrialState.FAILED, TrialState.COMPLETE]
    assert "not finite" in (work.trials()[0].error or "")
    assert [frozen.state.name for frozen in work.optuna().trials] == ["FAIL", "COMPLETE"]
    assert work.optuna().best_trial.number == 1


def test_a_worker_that_dies_once_costs_no_trial_and_changes_no_number(study: Callable[..., Study]) -> None:
    calm, rough = study(search={"pruner": "asha"}), study(search={"pruner": "asha"})
    calm.work(InProcessPool())
    pool, seen = InProcessPool(), []

    def deadly(each: TrialWork) -> bool:
        seen.append((each.trial, each.until))
        return each.trial == 0 and each.until > 1 and seen.count((0, each.until)) == 1

    pool.deadly = deadly
    rough.work(pool)

    assert (0, 3) in seen
    assert told(rough.trials()) == told(calm.trials())
    assert [[row.epoch for row in rough.epochs(n)] for n in range(6)] == [
        list(range(1, trial.epochs + 1)) for trial in calm.trials()
    ]


def test_a_trial_that_three_workers_died_of_is_failed_and_its_neighbour_is_not(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 4})
    pool = InProcessPool()
    pool.deadly = lambda each: each.trial == 1
    work.work(pool)

    assert work.states() == [TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [each.trial for _, each in pool.submitted].count(1) == 3
    error = work.trials()[1].error or ""
    assert "3 workers died" in error
    assert "the worker died" in error


# The end comes early


def test_the_target_ends_the_study_at_the_first_trial_that_meets_it(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 7, "target": 0.2})
    pool = InProcessPool()
    pool.change = lambda each, result: dataclasses.replace(result, validation=0.2 if each.trial >= 3 else 0.3)
    proposals = work.work(pool)

    # Trial 4 was with the worker already.
    assert work.states() == [TrialState.COMPLETE] * 5
    assert proposals.best() == (3, 0.2)


def done_early(each: TrialWork, result: SegmentResult) -> SegmentResult:
    """Trial 0 is done after 10 of its epochs, while its neighbour is in the middle."""
    done = each.trial == 0 and each.until == 10
    return dataclasses.replace(result, outcome=Outcome.FINISHED, train=0.5) if done else result


def test_when_the_target_is_met_what_is_under_way_ends_at_its_next_look(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "median"}, budget={"trials": 7, "target": 9.0, "epochs": 20})
    pool = InProcessPool()
    pool.change = done_early
    work.work(pool)

    assert [(t.state, t.epochs) for t in work.trials()] == [(TrialState.COMPLETE, 10), (TrialState.PRUNED, 10)]


def test_a_study_whose_time_is_up_before_it_begins_has_one_trial_all_the_same(study: Callable[..., Study]) -> None:
    work = study(budget={"minutes": 1})
    work.work(InProcessPool(), started=time.monotonic() - 61)
    assert work.states() == [TrialState.COMPLETE]


def test_when_the_time_is_up_no_trial_begins_and_those_under_way_are_trained_to_their_end(
    study: Callable[..., Study],
) -> None:
    work = study(search={"pruner": "median"}, budget={"trials": 7, "minutes": 1, "epochs": 20})
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        if each.until == 2:
            time.sleep(1.5)
        return result

    pool.change = change
    work.work(pool, started=time.monotonic() - 58)  # two seconds are left, and three are slept

    assert [(t.state, t.epochs) for t in work.trials()] == [(TrialState.COMPLETE, 20)] * 2
    assert work.shown[-1].left == 0


def test_when_the_time_is_up_only_what_may_still_win_is_trained_to_its_end(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "median"}, budget={"trials": 16, "minutes": 1, "epochs": 20})
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        if each.until == 2 and each.trial == 3:
            time.sleep(2.5)
        return result

    pool.change = change
    work.work(pool, started=time.monotonic() - 58)

    trials = work.trials()
    assert len(trials) == 4
    values = [min(row.validation_metric for row in work.epochs(trial.number)[:2]) for trial in trials]
    expected = [TrialState.COMPLETE if value == min(values) else TrialState.PRUNED for value in values]
    assert [trial.state for trial in trials] == expected


def test_a_stop_leaves_what_is_under_way_to_be_gone_on_with(study: Callable[..., Study]) -> None:
    calm, work = study(), study()
    calm.work(InProcessPool())
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        work.stop = each.trial >= 2
        return result

    pool.change = change
    claim = work.claim()
    work.work(pool, claim)
    assert work.states() == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING] * 2
    work.store.finish(claim, StudyState.STOPPED)

    work.stop = False
    work.store.requeue(work.id)
    resumed = InProcessPool()
    work.work(resumed)
    assert [each.trial for _, each in resumed.submitted] == [3, 4, 5]
    assert told(work.trials()) == told(calm.trials())


def test_a_resumed_trial_reports_each_epoch_once(study: Callable[..., Study]) -> None:
    calm, work = (study(search={"pruner": "median"}, budget={"epochs": 20}) for _ in range(2))
    calm.work(InProcessPool())
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        work.stop = each.trial == 1 and each.until == 6
        return result

    pool.change = change
    claim = work.claim()
    work.work(pool, claim)
    assert TrialState.RUNNING in work.states()
    assert len(work.epochs(1)) == 6
    work.store.finish(claim, StudyState.STOPPED)
    work.stop = False
    work.store.requeue(work.id)
    work.work(InProcessPool())

    for trial in work.trials():
        assert [row.epoch for row in work.epochs(trial.number)] == list(range(1, trial.epochs + 1))
    assert told(work.trials())[:2] == told(calm.trials())[:2]


def test_a_resumed_trial_is_looked_at_behind_the_epochs_that_are_recorded_of_it(study: Callable[..., Study]) -> None:
    work = study(search={"pruner": "median"}, budget={"trials": 2, "target": 9.0, "epochs": 20})
    pool = InProcessPool()

    def stop_at_six(each: TrialWork, result: SegmentResult) -> SegmentResult:
        work.stop = each.trial == 1 and each.until == 6
        return result

    pool.change = stop_at_six
    claim = work.claim()
    work.work(pool, claim)
    assert [len(work.epochs(trial)) for trial in (0, 1)] == [6, 6]
    work.store.finish(claim, StudyState.STOPPED)

    work.stop = False
    work.store.requeue(work.id)
    again = InProcessPool()

    def meet_the_target(each: TrialWork, result: SegmentResult) -> SegmentResult:
        done = each.trial == 0 and each.until == 8
        return dataclasses.replace(result, outcome=Outcome.FINISHED, train=0.5) if done else result

    again.change = meet_the_target
    work.work(again)
    ended, rows, frozen = work.trials()[1], work.epochs(1), work.optuna().trials[1]
    assert ended.state is TrialState.PRUNED
    assert ended.epochs == len(rows) == frozen.last_step == 8
    assert {each.until for _, each in again.submitted} == {8}
    assert frozen.value == rows[-1].validation_metric


def test_a_cancel_ends_every_trial(study: Callable[..., Study]) -> None:
    work = study()
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        work.cancel = each.trial >= 2
        return result

    pool.change = change
    work.work(pool)

    assert work.states() == [TrialState.COMPLETE] * 3 + [TrialState.FAILED] * 2
    assert [trial.error for trial in work.trials()[3:]] == ["the study was cancelled"] * 2
    assert work.store.pending_facts(work.id) == 5


def test_a_cancel_ends_also_what_an_earlier_dispatcher_left_and_nobody_has_taken_up(
    study: Callable[..., Study],
) -> None:
    work = study()
    claim = work.claim()
    work.stop = True
    work.work(InProcessPool(workers=2), claim)
    assert work.states() == [TrialState.RUNNING] * 4
    work.store.finish(claim, StudyState.STOPPED)

    work.stop, work.cancel = False, True
    work.store.requeue(work.id)
    work.work(InProcessPool())
    assert work.states() == [TrialState.FAILED] * 4
    assert [trial.state.name for trial in work.optuna().trials] == ["FAIL"] * 4
    assert work.store.pending_facts(work.id) == 4


def test_a_trial_that_finishes_while_the_workers_are_told_to_halt_counts(study: Callable[..., Study]) -> None:
    work = study(budget={"trials": 2})
    pool = InProcessPool()

    class Late(InProcessPool):
        def halt(self) -> None:
            """It comes too late."""

    pool = Late()
    work.stop = True
    work.work(pool)
    assert work.states() == [TrialState.COMPLETE] * 2
    assert work.checkpoint.best is not None


def test_nothing_is_written_after_another_dispatcher_took_over_and_the_workers_halt(
    study: Callable[..., Study],
) -> None:
    work = study()
    claim = work.store.claim("first", -1.0, work.id)
    assert claim is not None
    pool, before = InProcessPool(), []

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        if each.trial == 2:
            before.append(told(work.trials()))
            assert work.store.claim("second", study_id=work.id) is not None
        return result

    pool.change = change
    with pytest.raises(LeaseLostError):
        work.work(pool, claim)

    assert told(work.trials()) == before[0]
    assert pool._halted


def test_a_lease_that_is_known_to_be_lost_ends_the_work(study: Callable[..., Study]) -> None:
    work = study()

    def renew() -> None:
        raise LeaseLostError("gone")

    with pytest.raises(LeaseLostError, match="gone"):
        work.work(InProcessPool(), renew=renew)
    assert work.trials() == []


# The screen


def test_the_screen_gets_the_counts_and_the_best(study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "LOOK_SECONDS", 0.0)
    work = study(search={"pruner": "asha"}, budget={"trials": 8})
    work.work(InProcessPool())

    first, last = work.shown[0], work.shown[-1]
    assert (first.total, first.running, [worker.name for worker in first.workers]) == (8, 2, ["worker-1"])
    assert [p.complete + p.pruned + p.failed for p in work.shown] == sorted(
        p.complete + p.pruned + p.failed for p in work.shown
    )
    states = work.states()
    assert (last.complete, last.pruned) == (states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED))
    best = min((t.validation, t.number) for t in work.trials() if t.state is TrialState.COMPLETE and t.validation)
    assert (last.best_value, last.best_trial) == best
    assert last.best_params == work.trials()[best[1]].params
    assert (last.running, last.left) == (0, 0)
