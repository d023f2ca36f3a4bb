"""The queue: numbers, claims, leases, fencing, cancels and resumes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from neurosweep.errors import BadInputError, LeaseLostError, NoSuchStudyError
from storage.records import Batch, StudyState, TrialState
from storage.store import Store
from tests.storage.samples import ended, epoch, new_study, proposed


@pytest.fixture
def store(database_url: str) -> Store:
    return Store.open(database_url)


def test_studies_of_one_name_are_numbered_in_the_order_of_submission(store: Store) -> None:
    labels = [store.submit(new_study(name)).label for name in ("a", "b", "a", "a")]
    assert labels == ["a", "b", "a@2", "a@3"]
    assert [summary.study.label for summary in store.list_studies()] == ["a@3", "a@2", "b", "a"]


def test_a_name_means_its_newest_study_and_a_number_the_exact_one(store: Store) -> None:
    for _ in range(3):
        store.submit(new_study("a"))
    assert store.find("a").number == 3
    assert store.find("a@1").number == 1
    assert store.find("a@1").label == "a"


@pytest.mark.parametrize(
    ("label", "hint"),
    [("digist", "did you mean 'digits'"), ("digits@9", "which numbers"), ("digits@x", "which numbers"), ("", "list")],
)
def test_an_unknown_study_is_an_error_with_a_hint(store: Store, label: str, hint: str) -> None:
    store.submit(new_study("digits"))
    with pytest.raises(NoSuchStudyError, match=hint):
        store.find(label)


def test_the_oldest_waiting_study_is_claimed_first_and_each_once(store: Store) -> None:
    for name in ("a", "b"):
        store.submit(new_study(name))
    claims = [store.claim("d") for _ in range(3)]
    assert [claim.study.name if claim else None for claim in claims] == ["a", "b", None]
    assert store.find("a").state is StudyState.RUNNING


def test_a_given_study_is_claimed_whatever_waits_before_it(store: Store) -> None:
    store.submit(new_study("a"))
    wanted = store.submit(new_study("b"))
    claim = store.claim("d", study_id=wanted.id)
    assert claim is not None
    assert claim.study.name == "b"


def test_racing_dispatchers_have_one_winner_for_each_study(database_url: str) -> None:
    rounds, racers = 40, 4
    stores = [Store.open(database_url) for _ in range(racers)]
    ids = [stores[0].submit(new_study("a")).id for _ in range(rounds)]
    barrier = threading.Barrier(racers)

    def race(store: Store) -> list[int]:
        won = []
        for _ in range(rounds):
            barrier.wait()
            claim = store.claim("d")
            if claim is not None:
                assert claim.token == 1
                won.append(claim.study.id)
        return won

    with ThreadPoolExecutor(racers) as threads:
        won = Counter(study for each in threads.map(race, stores) for study in each)
    # SKIP LOCKED may let a racer go empty-handed while others hold rows; what is left is still there to take.
    while (claim := stores[0].claim("d")) is not None:
        won[claim.study.id] += 1
    assert won == Counter(ids)


def test_a_lease_that_runs_out_can_be_taken_over_and_the_old_holder_cannot_write(store: Store) -> None:
    store.submit(new_study())
    first = store.claim("slow", lease_seconds=0.2)
    assert first is not None
    assert store.claim("eager") is None
    time.sleep(0.4)
    second = store.claim("eager")
    assert second is not None
    assert second.token == first.token + 1
    for write in (
        lambda: store.record(first, Batch(proposed=(proposed(0),))),
        lambda: store.renew(first, 30),
        lambda: store.started(first, "hash", {}),
        lambda: store.finish(first, StudyState.FINISHED),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert store.trials(first.study.id) == []
    store.record(second, Batch(proposed=(proposed(0),)))
    assert len(store.trials(first.study.id)) == 1


def test_a_renewed_lease_is_not_taken_over(store: Store) -> None:
    store.submit(new_study())
    claim = store.claim("d", lease_seconds=2.0)
    assert claim is not None
    for _ in range(4):
        time.sleep(0.7)
        assert store.renew(claim, 2.0) is False
        assert store.claim("other") is None


def test_a_waiting_study_is_cancelled_at_once(store: Store) -> None:
    study = store.submit(new_study())
    assert store.request_cancel(study.id).state is StudyState.CANCELLED
    assert store.claim("d") is None


def test_mlflow_is_told_once_of_a_cancel_of_a_study_that_had_begun(store: Store) -> None:
    waiting = store.submit(new_study("waiting"))
    begun = store.submit(new_study("begun"))
    claim = store.claim("one", study_id=begun.id)
    assert claim is not None
    store.finish(claim, StudyState.STOPPED)
    for study in (waiting, begun, begun):
        assert store.request_cancel(study.id).state is StudyState.CANCELLED
    assert store.pending_facts(waiting.id) == 0
    assert store.pending_facts(begun.id) == 1


def test_a_study_whose_dispatcher_is_gone_is_cancelled_at_once(store: Store) -> None:
    claim = store.claim("gone", -1.0, study_id=store.submit(new_study()).id)
    assert claim is not None
    assert store.request_cancel(claim.study.id).state is StudyState.CANCELLED
    assert store.claim("another") is None
    with pytest.raises(LeaseLostError):  # should it come back
        store.record(claim, Batch())


def test_a_running_studys_dispatcher_hears_of_a_cancel_with_its_heartbeat(store: Store) -> None:
    study = store.submit(new_study())
    claim = store.claim("d")
    assert claim is not None
    assert store.renew(claim, 30) is False
    assert store.request_cancel(study.id).state is StudyState.RUNNING
    assert store.renew(claim, 30) is True


def test_a_finished_study_is_resumed_with_more_trials(store: Store) -> None:
    study = store.submit(new_study(trials=2))
    claim = store.claim("d")
    assert claim is not None
    store.record(claim, Batch(proposed=(proposed(0), proposed(1))))
    store.finish(claim, StudyState.FINISHED, result={"best": 1})
    with pytest.raises(BadInputError, match="2 trials already"):
        store.requeue(study.id, trials=1)
    again = store.requeue(study.id, trials=5)
    assert (again.state, again.trials, again.result) == (StudyState.QUEUED, 5, {"best": 1})
    second = store.claim("d")
    assert second is not None
    assert second.study.ended_at is None


def test_a_summary_counts_trials_and_knows_the_best_complete_one(store: Store) -> None:
    study = store.submit(new_study(trials=9))
    claim = store.claim("d")
    assert claim is not None
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED]
    values = [0.5, 0.25, 0.125, None]
    store.record(
        claim,
        Batch(
            proposed=tuple(proposed(number) for number in range(5)),
            epochs=(epoch(0, 1),),
            ended=tuple(ended(n, state, value) for n, (state, value) in enumerate(zip(states, values, strict=True))),
        ),
    )
    summary = store.summary(study.id)
    assert summary.counts == {
        TrialState.COMPLETE: 2,
        TrialState.PRUNED: 1,
        TrialState.FAILED: 1,
        TrialState.RUNNING: 1,
    }
    assert summary.best == 0.25
    assert store.list_studies() == [summary]


def test_a_cancel_of_a_study_that_nobody_works_on_ends_its_unfinished_trials(store: Store) -> None:
    study = store.submit(new_study())
    claim = store.claim("gone", study_id=study.id)
    assert claim is not None
    store.record(claim, Batch(proposed=(proposed(0), proposed(1)), epochs=(epoch(1, 1), epoch(1, 2))))
    store.record(claim, Batch(ended=(ended(0),)))
    store.finish(claim, StudyState.STOPPED)

    assert store.request_cancel(study.id).state is StudyState.CANCELLED
    first, second = store.trials(study.id)
    assert first.state is TrialState.COMPLETE
    assert (second.state, second.error, second.epochs) == (TrialState.FAILED, "the study was cancelled", 2)
    assert second.ended_at is not None
    theirs = store.optuna_trials(study.id)
    assert [trial.state.name for trial in theirs] == ["COMPLETE", "FAIL"]
    assert store.pending_facts(study.id) == 2  # the trial's end and the study's
