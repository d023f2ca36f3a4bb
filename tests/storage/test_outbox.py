"""The outbox: facts in order, one publisher at a time, none lost and none held up by another."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from neurosweep.errors import LeaseLostError
from storage.records import Batch, Behind, Claim, Fact, FactKind, MlflowRun, OutboxClaim
from storage.store import Store
from tests import small_study
from tests.storage.samples import new_study


@pytest.fixture
def store(database_url: str) -> Store:
    return Store.open(database_url)


def study_with_facts(store: Store, *keys: str) -> Claim:
    study = store.submit(new_study())
    store.optuna_trials(study.id)
    claim = store.claim("d", study_id=study.id)
    assert claim is not None
    facts = tuple(Fact(key=key, kind=FactKind.TRIAL_ENDED, trial=index) for index, key in enumerate(keys))
    store.record(claim, Batch(facts=facts))
    return claim


def held(store: Store, publisher: str = "p", lease: float = 30) -> OutboxClaim:
    claim = store.claim_outbox(publisher, lease)
    assert claim is not None
    return claim


def test_facts_come_in_the_order_in_which_they_happened(store: Store) -> None:
    study_with_facts(store, "z", "a", "m")
    claim = held(store)
    assert [fact.key for fact in store.facts(claim, 2)] == ["z", "a"]
    store.published(claim, ["z", "a"])
    assert [(fact.key, fact.trial) for fact in store.facts(claim, 9)] == [("m", 2)]
    assert store.pending_facts() == 1


def test_one_publisher_at_a_time_holds_a_study(store: Store) -> None:
    study_with_facts(store, "a")
    claim = held(store)
    assert store.claim_outbox("q", 30) is None
    store.release_outbox(claim)
    assert held(store, "q").token == claim.token + 1


def test_each_publisher_gets_a_study_of_its_own(store: Store) -> None:
    one, two = study_with_facts(store, "a"), study_with_facts(store, "b")
    assert {held(store).study.id, held(store, "q").study.id} == {one.study.id, two.study.id}


def test_a_publisher_that_lost_its_lease_can_not_acknowledge(store: Store) -> None:
    study_with_facts(store, "a")
    slow = held(store, "slow", 0.1)
    time.sleep(0.3)
    held(store, "eager")
    writes: list[Callable[[], None]] = [
        lambda: store.published(slow, ["a"]),
        lambda: store.postponed(slow, "a", "why", 1),
        lambda: store.renew_outbox(slow, 30),
        lambda: store.set_run(slow, MlflowRun(experiment_id="1", run_id="r")),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError):
            write()
    assert store.pending_facts() == 1


def test_a_postponed_fact_does_not_hold_up_the_others_and_comes_again(store: Store) -> None:
    claim = study_with_facts(store, "poisoned", "good")
    outbox = held(store)
    store.postponed(outbox, "poisoned", "MLflow said no", 0.4)
    assert [fact.key for fact in store.facts(outbox, 9)] == ["good"]
    store.published(outbox, ["good"])
    store.release_outbox(outbox)
    assert store.claim_outbox("p", 30) is None
    assert store.pending_facts(claim.study.id) == 1
    time.sleep(0.5)
    assert [fact.key for fact in store.facts(held(store), 9)] == ["poisoned"]


def test_the_parent_run_is_remembered(store: Store) -> None:
    claim = study_with_facts(store, "a")
    assert store.mlflow_run(claim.study.id) is None
    outbox = held(store)
    for run_id in ("first", "second"):
        store.set_run(outbox, MlflowRun(experiment_id="7", run_id=run_id))
    assert store.mlflow_run(claim.study.id) == MlflowRun(experiment_id="7", run_id="second")


def test_an_attempt_that_is_no_fault_of_the_facts_never_sets_it_aside(store: Store) -> None:
    study_with_facts(store, "a")
    claim = held(store)
    for _ in range(20):
        store.postponed(claim, "a", "MLflow does not answer", 0)
    assert [fact.attempts for fact in store.facts(claim, 9)] == [0]
    assert store.behind() == Behind(pending=1, set_aside=0, oldest_reason="MLflow does not answer")


def test_a_fact_that_is_set_aside_holds_nothing_up_and_can_be_taken_back(store: Store) -> None:
    study = study_with_facts(store, "poisoned", "good").study
    claim = held(store)
    (poisoned, _) = store.facts(claim, 9)
    store.refused(claim, poisoned, "a changed parameter", 0, set_aside=True)
    assert [fact.key for fact in store.facts(claim, 9)] == ["good"]
    wanted = Behind(pending=1, set_aside=1, set_aside_reason="a changed parameter")
    assert store.behind(study.id) == store.behind() == wanted
    store.published(claim, ["good"])
    store.release_outbox(claim)
    assert store.claim_outbox("p", 30) is None
    assert store.pending_facts() == 1
    assert store.take_back(study.id) == 1
    assert [(fact.key, fact.attempts) for fact in store.facts(held(store), 9)] == [("poisoned", 0)]


def test_a_refused_fact_counts_its_attempts_once_each(store: Store) -> None:
    study_with_facts(store, "a")
    claim = held(store)
    (fact,) = store.facts(claim, 9)
    for _ in range(2):  # the answer to the first time was lost
        store.refused(claim, fact, "no", 0, set_aside=False)
    assert [fact.attempts for fact in store.facts(claim, 9)] == [1]


def test_facts_of_the_study_itself_keep_their_order_while_trials_overtake(store: Store) -> None:
    study = store.submit(new_study())
    store.optuna_trials(study.id)
    dispatcher = store.claim("d", study_id=study.id)
    assert dispatcher is not None
    started = Fact(key="started", kind=FactKind.STUDY_STARTED)
    trial = Fact(key="trial", kind=FactKind.TRIAL_ENDED, trial=0)
    ended = Fact(key="ended", kind=FactKind.STUDY_ENDED)
    store.record(dispatcher, Batch(facts=(started, trial, ended)))
    claim = held(store)
    store.postponed(claim, "started", "not now", 60)
    assert [fact.key for fact in store.facts(claim, 9)] == ["trial"]
    store.published(claim, ["trial"])
    store.release_outbox(claim)
    assert store.claim_outbox("p", 30) is None  # the end waits for the start
    assert store.tell_again(study.id) == 3
    claim = held(store)
    store.refused(claim, started, "never", 0, set_aside=True)
    assert [fact.key for fact in store.facts(claim, 9)] == ["trial", "ended"]


def test_how_far_mlflow_is_behind_names_the_oldest_reason_and_the_next_try(store: Store) -> None:
    assert store.behind() == Behind(pending=0, set_aside=0)
    study_with_facts(store, "a", "b")
    claim = held(store)
    for key, delay in (("b", 3600.0), ("a", 60.0)):
        store.postponed(claim, key, f"why {key}", delay)
    behind = store.behind()
    assert (behind.pending, behind.oldest_reason) == (2, "why a")
    assert behind.next_try is not None
    assert 50 < (behind.next_try - datetime.now(UTC)).total_seconds() < 70
    assert store.behind(study_id=99) == Behind(pending=0, set_aside=0)


def test_a_study_is_told_again_with_a_fact_for_all_that_it_has(store: Store) -> None:
    study = small_study.whole_study(store, winner=None)
    with store._engine.begin() as connection:  # as after an import
        connection.execute(sa.text("DELETE FROM neurosweep_outbox"))
    assert [store.tell_again(study.id) for _ in range(2)] == [6, 6]
    facts = store.facts(held(store), 9)
    assert [fact.kind for fact in facts] == [
        FactKind.STUDY_STARTED,
        *[FactKind.TRIAL_ENDED] * 4,
        FactKind.STUDY_ENDED,
    ]
    assert store.tell_again(store.submit(new_study("waiting")).id) == 0
