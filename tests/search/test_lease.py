"""The heartbeat, on real databases, with beats that are short enough for a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from neurosweep.errors import LeaseLostError
from search import lease as lease_module
from search.lease import BEAT_SECONDS, LEASE_SECONDS, Lease
from storage.records import Claim, NewStudy, StudyState
from storage.store import Store

BEAT = 0.05


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1.0)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store.open(database_url)
    yield opened
    opened.close()


def claim_one(store: Store, lease_seconds: float = 1.0) -> Claim:
    study = store.submit(NewStudy(name="digits", spec={}, text="", trials=3))
    claim = store.claim("mine", lease_seconds, study.id)
    assert claim is not None
    return claim


def eventually(happened: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def beating() -> int:
    return sum(thread.name == "lease" for thread in threading.enumerate())


def test_several_beats_may_fail_before_the_lease_runs_out() -> None:
    assert 5 * BEAT_SECONDS <= LEASE_SECONDS


def test_a_beating_study_can_not_be_taken_over_and_a_silent_one_can(store: Store) -> None:
    claim = claim_one(store)
    with Lease(store, claim) as lease:
        time.sleep(2.2)  # more than twice the lease
        assert store.claim("other") is None
        assert not lost(lease)
    assert eventually(lambda: store.claim("other", study_id=claim.study.id) is not None)


def test_a_cancel_is_heard(store: Store) -> None:
    claim = claim_one(store)
    with Lease(store, claim) as lease:
        time.sleep(4 * BEAT)
        assert not lease.cancelled()
        store.request_cancel(claim.study.id)
        assert eventually(lease.cancelled)
        lease.check()  # cancelled is not lost


def test_a_cancelled_study_is_kept_until_its_dispatcher_has_ended_it(store: Store) -> None:
    claim = claim_one(store)
    with Lease(store, claim) as lease:
        store.request_cancel(claim.study.id)
        assert eventually(lease.cancelled)
        time.sleep(1.5)
        assert store.claim("other") is None
        store.finish(claim, StudyState.CANCELLED)
    assert store.study(claim.study.id).state is StudyState.CANCELLED


def test_a_study_that_another_dispatcher_has_is_lost(store: Store) -> None:
    claim = claim_one(store, lease_seconds=-1.0)  # as after a long sleep of the machine
    other = store.claim("other")
    assert other is not None
    with Lease(store, claim) as lease:
        assert eventually(lambda: lost(lease))
        assert not lease.cancelled()
        with pytest.raises(LeaseLostError, match="digits"):
            lease.check()
        assert eventually(lambda: beating() == 0)  # no use in asking again
    # The other one's lease was left alone.
    assert store.renew(other, 30.0) is False


def test_losing_stays_lost(store: Store) -> None:
    claim = claim_one(store, lease_seconds=-1.0)
    assert store.claim("other") is not None
    with Lease(store, claim) as lease:
        assert eventually(lambda: lost(lease))
    assert lost(lease)


def test_a_database_that_does_not_answer_for_a_while_ends_nothing(store: Store, database_url: str) -> None:
    claim = claim_one(store, lease_seconds=30.0)
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)

    def rename(old: str, new: str) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))

    with Lease(store, claim) as lease:
        time.sleep(2 * BEAT)
        rename("neurosweep_study", "elsewhere")
        time.sleep(8 * BEAT)
        assert beating() == 1
        assert not lost(lease)
        assert not lease.cancelled()
        rename("elsewhere", "neurosweep_study")
        store.request_cancel(claim.study.id)
        assert eventually(lease.cancelled)


def test_no_error_stops_the_heart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    renew, failed = store.renew, threading.Event()

    def fail_once(claim: Claim, lease_seconds: float, worked: float, notice: str | None) -> bool:
        if not failed.is_set():
            failed.set()
            # What SQLAlchemy raises while another thread is importing sqlalchemy.orm, as Optuna does.
            raise AttributeError("partially initialized module")
        return renew(claim, lease_seconds, worked, notice)

    monkeypatch.setattr(store, "renew", fail_once)
    claim = claim_one(store)
    with Lease(store, claim) as lease:
        assert failed.wait(10)
        store.request_cancel(claim.study.id)
        assert eventually(lease.cancelled)


def test_leaving_ends_the_heart_at_once_even_after_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 60.0)
    claim = claim_one(store)
    began = time.monotonic()
    with pytest.raises(KeyError), Lease(store, claim):
        assert beating() == 1
        raise KeyError
    assert beating() == 0
    assert time.monotonic() - began < 5
