"""What the dispatcher makes of workers that hang, machines that go, a lack of memory, and a database that is away."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neurosweep.errors import DiskFullError, UnreachableError
from search.clock import Clock
from search.dispatcher import DEATHS
from search.failures import IN_A_ROW
from search.watch import SILENCE_SECONDS
from storage.records import Batch, Claim, TrialState
from tests.search.dispatched import Study, told
from tests.search.in_process_pool import InProcessPool
from trainer.work import OUT_OF_MEMORY, Outcome, SegmentResult, TrialWork

MakeStudy = Callable[..., Study]


class Time:
    """A clock that goes on by a second with each look at it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> Clock:
        return Clock(monotonic=self._tick, now=self._now, sleep=self._sleep)

    def _tick(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def _now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_a_worker_that_hangs_once_costs_no_trial_and_changes_no_number(study: MakeStudy) -> None:
    calm, rough = study(budget={"trials": 4}), study(budget={"trials": 4})
    calm.work(InProcessPool())
    pool = InProcessPool()
    pool.hangs = lambda each: each.trial == 1 and not pool.ended
    rough.work(pool, clock=Time().clock())

    ((worker, why),) = pool.ended
    assert (worker, why.startswith("it showed no sign of life")) == (0, True)
    assert told(rough.trials()) == told(calm.trials())


def test_a_trial_over_which_workers_hang_is_failed_and_the_others_are_not(study: MakeStudy) -> None:
    work = study(budget={"trials": 4})
    pool = InProcessPool()
    pool.hangs = lambda each: each.trial == 1
    work.work(pool, clock=Time().clock())

    assert [trial.number for trial in work.trials() if trial.state is TrialState.FAILED] == [1]
    error = work.trials()[1].error or ""
    assert error.startswith(f"{DEATHS} workers died")
    assert "no sign of life" in error
    assert [trial.deaths for trial in work.trials()] == [0, DEATHS, 0, 0]


def test_a_trial_that_is_past_its_minutes_and_does_not_answer_ends_for_good(study: MakeStudy) -> None:
    work = study(budget={"trials": 4, "minutes_per_trial": 0.1})
    pool = InProcessPool()
    pool.hangs = lambda each: each.trial == 1
    time = Time()
    work.work(pool, clock=time.clock())

    assert [trial.number for trial in work.trials() if trial.state is TrialState.FAILED] == [1]
    assert work.trials()[1].error == "it took longer than budget.minutes_per_trial, 0.1"
    assert len(pool.ended) == 1
    assert time.seconds < 5 * SILENCE_SECONDS


def test_a_trial_is_given_what_is_left_of_its_minutes(study: MakeStudy) -> None:
    work = study(budget={"trials": 2, "minutes_per_trial": 1, "epochs": 27}, search={"pruner": "asha"})
    pool = InProcessPool()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        return dataclasses.replace(result, seconds=sum(epoch.seconds for epoch in result.epochs) + 10.0)

    pool.change = change
    work.work(pool)
    given = [each.seconds for _, each in pool.submitted if each.trial == 0]
    assert given[0] == 60.0
    assert all(0 <= later <= earlier - 10 for earlier, later in itertools.pairwise(given))


def test_a_trial_that_took_too_long_says_so(study: MakeStudy) -> None:
    work = study(budget={"trials": 3, "minutes_per_trial": 5})
    pool = InProcessPool()
    pool.change = lambda each, result: (
        dataclasses.replace(result, outcome=Outcome.TOO_LONG, reason="up") if each.trial == 1 else result
    )
    work.work(pool)
    assert [trial.error for trial in work.trials()] == [None, "it took longer than budget.minutes_per_trial, 5", None]


# Memory


def out_of_memory(each: TrialWork, result: SegmentResult) -> SegmentResult:
    return dataclasses.replace(result, outcome=Outcome.OUT_OF_MEMORY, reason=f"{OUT_OF_MEMORY}; it takes 9 GB")


def test_a_trial_that_ran_out_of_memory_is_given_a_worker_of_its_own(study: MakeStudy) -> None:
    calm, work = study(budget={"trials": 8}), study(budget={"trials": 8})
    calm.work(InProcessPool())
    pool = InProcessPool()
    pool.change = lambda each, result: out_of_memory(each, result) if each.trial == 1 and not pool.ended else result
    work.work(pool)

    assert len(pool.ended) == 1
    assert told(work.trials()) == told(calm.trials())
    second = [index for index, (_, each) in enumerate(pool.submitted) if each.trial == 1][1]
    sizes = [size for _, size in pool.packs for _ in range(size)]
    assert sizes[second] == 1


def test_one_that_runs_out_there_as_well_is_failed_and_nothing_as_large_is_proposed(study: MakeStudy) -> None:
    work = study(
        budget={"trials": 16},
        search={"sampler": "tpe"},
        space={"neurons": {"low": 4, "high": 64}, "optimizer": "adam", "batch_norm": False},
    )
    pool, large = InProcessPool(), 24
    failed: set[int] = set()

    def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
        if each.settings.neurons[0] < large:
            return result
        failed.add(each.trial)
        return out_of_memory(each, result)

    pool.change = change
    work.work(pool)
    trials = work.trials()
    assert {trial.number for trial in trials if trial.state is TrialState.FAILED} == failed
    assert all((trials[number].error or "").startswith(OUT_OF_MEMORY) for number in failed)
    least = min(trials[number].params["neurons_1"] for number in failed)
    # Those in flight when the first one failed were proposed before that was known.
    assert all(trial.params["neurons_1"] <= least for trial in trials[max(failed) + 1 :])


# Machines


def test_what_a_lost_machine_had_goes_on_elsewhere_and_a_machine_that_comes_back_is_given_work(
    study: MakeStudy,
) -> None:
    calm, work = study(budget={"trials": 24}), study(budget={"trials": 24})
    calm.work(InProcessPool(2))

    class Leaving(InProcessPool):
        def collect(self, timeout: float) -> Any:
            if len(self.submitted) >= 6 and 1 not in self.absent and not self.forgotten:
                self.lose(1)
            if 1 in self.absent and len(self.forgotten) > 8:
                self.bring_back(1)
            return super().collect(timeout)

    pool = Leaving(2)
    work.work(pool)
    assert told(work.trials()) == told(calm.trials())
    assert all(trial.deaths == 0 for trial in work.trials())
    assert {worker for worker, _ in pool.packs[-4:]} == {0, 1}


# The database and the disk


@pytest.mark.parametrize("error", [UnreachableError("it does not answer"), DiskFullError("it is full")])
def test_a_database_that_is_away_or_full_is_waited_for(
    study: MakeStudy, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, work = study(search={"pruner": "asha"}), study(search={"pruner": "asha"})
    calm.work(InProcessPool())
    record, calls = work.store.record, [0]

    def away(claim: Claim, batch: Batch) -> None:
        calls[0] += 1
        if calls[0] % 4:
            raise error
        record(claim, batch)

    monkeypatch.setattr(work.store, "record", away)
    work.work(InProcessPool(), clock=Time().clock())
    assert told(work.trials()) == told(calm.trials())
    assert f"waiting: {error}" in [progress.stage for progress in work.shown]


def test_a_user_who_stops_while_the_database_is_away_is_not_kept(
    study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = study()

    def away(claim: Claim, batch: Batch) -> None:
        work.stop = len(work.shown) > 3
        raise UnreachableError("it does not answer")

    monkeypatch.setattr(work.store, "record", away)
    with pytest.raises(UnreachableError):
        work.work(InProcessPool(), clock=Time().clock())


# Too many failures


def test_ten_failures_in_a_row_end_a_study_with_one_reason(study: MakeStudy) -> None:
    work = study(budget={"trials": 100}, space={"learning_rate": 1e30, "optimizer": "sgd"})
    work.work(InProcessPool())

    assert work.failure is not None
    count, _, rest = work.failure.partition(" ")
    assert int(count) >= IN_A_ROW
    assert rest.startswith("trials in a row failed; ")
    assert "because the loss was not finite" in work.failure
    assert len(work.trials()) < 40
    assert TrialState.RUNNING not in work.states()


def test_a_worker_with_a_second_pack_waiting_is_watched_from_the_first_one_on(study: MakeStudy) -> None:
    work = study(budget={"trials": 2})  # each a pack by itself, and both are given at once
    pool = InProcessPool()
    pool.hangs = lambda each: each.trial == 0 and not pool.ended
    work.work(pool, clock=Time().clock())
    assert len(pool.ended) == 1
    assert work.states() == [TrialState.COMPLETE] * 2
