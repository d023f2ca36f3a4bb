"""How the dispatcher ends: failures, deaths, targets, time, stops, cancels; with real trainers as its workers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import pytest

from neurosweep.errors import LeaseLostError
from search import dispatcher as dispatcher_module
from storage.records import StudyState, TrialState
from tests.search.dispatched import Study, told
from tests.search.in_process_pool import InProcessPool
from trainer.work import Outcome, SegmentResult, TrialWork

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
