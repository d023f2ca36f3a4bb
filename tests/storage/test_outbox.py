"""The outbox: facts in order, one publisher at a time, none lost and none held up by another."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from neurosweep.errors import LeaseLostError
from storage.records import Batch, Claim, Fact, FactKind, MlflowRun, OutboxClaim
from storage.store import Store
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
