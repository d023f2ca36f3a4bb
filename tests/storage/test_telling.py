"""What waits, what is set aside and what goes on, with an MLflow that fails as it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from storage import telling
from storage.records import Behind, EpochRow, ExtraRun, Probe, StudyRecord, TrialRecord
from storage.store import Store
from storage.telling import ATTEMPTS, ElsewhereError, Teller
from tests import small_study
from tests.storage.samples import extra_run


class RefusedError(Exception):
    """MLflow answers, but not to this."""


class FakeMlflow:
    """One study's runs as a list of what was written; `fails` raises where it should not work."""

    experiment_id = "1"

    def __init__(self, fails: Callable[[str], None] = lambda what: None) -> None:
        self.fails = fails
        self.written: list[str] = []
        self.parent: str | None = None
        self.reads = 0

    def is_there(self) -> bool:
        return True

    def read_runs(self) -> None:
        self.reads += 1

    def start(self, study: StudyRecord) -> str:
        self._write("start")
        self.parent = "parent"
        return self.parent

    def trial(self, study: StudyRecord, trial: TrialRecord, epochs: Sequence[EpochRow]) -> None:
        self._write(f"trial {trial.number}")

    def extra_run(self, study: StudyRecord, run: ExtraRun) -> None:
        self._write(run.name)

    def page(self, study: StudyRecord, name: str) -> None:
        self._write(name)

    def end(self, study: StudyRecord) -> str:
        self._write("end")
        return "parent"

    def _write(self, what: str) -> None:
        self.fails(what)
        self.written.append(what)


ALL = ["start", "trial 0", "trial 1", "trial 2", "trial 3", "end"]


@pytest.fixture
def store(database_url: str) -> Store:
    store = Store.open(database_url)
    small_study.whole_study(store, winner=None)
    return store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "SLOWEST", 0.01)
    monkeypatch.setattr(telling, "ELSEWHERE", 0.01)


def teller(store: Store, mlflow: FakeMlflow) -> Teller:
    def read(study: StudyRecord) -> FakeMlflow:
        mlflow.fails("read")
        return mlflow

    return Teller(
        store, Path("home"), read=read, refuses=lambda error: isinstance(error, RefusedError), reason=lambda e: str(e)
    )


def publish(teller: Teller, turns: int) -> None:
    for _ in range(turns):
        teller.publish_due()
        time.sleep(0.02)  # past the longest wait


def refuse(*poisoned: str) -> Callable[[str], None]:
    def fails(what: str) -> None:
        if what in poisoned:
            raise RefusedError(f"no {what}")

    return fails


def test_a_poisoned_fact_is_set_aside_after_five_attempts_and_the_others_go_on_at_once(store: Store) -> None:
    attempts: list[str] = []

    def fails(what: str) -> None:
        if what == "trial 1":
            attempts.append(what)
            raise RefusedError("no trial 1")

    mlflow = FakeMlflow(fails)
    publisher = teller(store, mlflow)
    turn = publisher.publish_due()
    assert turn.reason == "no trial 1"
    assert mlflow.written == [what for what in ALL if what != "trial 1"]
    publish(publisher, 12)
    assert len(attempts) == ATTEMPTS == 5
    assert store.behind() == Behind(pending=0, set_aside=1, set_aside_reason="no trial 1")
    mlflow.fails = refuse()
    publish(publisher, 2)
    assert "trial 1" not in mlflow.written
    store.tell_again(1)
    publish(publisher, 1)
    assert mlflow.written[-6:] == ALL
    assert store.behind() == Behind(pending=0, set_aside=0)


def test_nothing_is_set_aside_while_mlflow_does_not_answer(store: Store) -> None:
    calls: list[str] = []

    def away(what: str) -> None:
        calls.append(what)
        raise ConnectionError("MLflow does not answer")

    mlflow = FakeMlflow(away)
    publisher = teller(store, mlflow)
    for _ in range(12):
        publisher.publish_due(lambda: len(calls) >= 8)  # else a slow machine, which never waits, never comes back
        time.sleep(0.02)
    assert len(calls) >= 8
    assert set(calls) == {"read"}
    assert store.behind().set_aside == 0
    assert (store.behind().pending, store.behind().oldest_reason) == (6, "MLflow does not answer")
    mlflow.fails = refuse()
    publish(publisher, 3)
    assert mlflow.written == ALL


def test_a_refusal_before_the_first_fact_is_mlflows_and_not_the_facts(store: Store) -> None:
    publish(teller(store, FakeMlflow(refuse("read"))), 12)
    assert store.behind() == Behind(pending=6, set_aside=0, oldest_reason="no read")


def test_the_wait_grows_with_each_time_that_mlflow_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "SLOWEST", 8.0)
    assert [telling._delay(failures) for failures in (0, 1, 2, 3, 4, 5, 1000)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_no_trial_is_told_before_its_study_and_no_end_before_the_start(store: Store) -> None:
    mlflow = FakeMlflow(refuse("start"))
    publisher = teller(store, mlflow)
    publisher.publish_due()
    assert mlflow.written == []
    mlflow.fails = refuse()
    publish(publisher, 3)
    assert mlflow.written[0] == "start"
    assert sorted(set(mlflow.written)) == sorted(ALL)
    assert mlflow.written.index("end") > mlflow.written.index("start")


def test_a_study_whose_champion_is_elsewhere_waits_with_that_alone_and_is_never_set_aside(store: Store) -> None:
    def elsewhere(what: str) -> None:
        if what == "end":
            raise ElsewhereError("the champion's files are not here")

    mlflow = FakeMlflow(elsewhere)
    publish(teller(store, mlflow), 12)
    assert mlflow.written == ALL[:-1]
    behind = store.behind()
    assert (behind.pending, behind.set_aside) == (1, 0)
    assert "the champion's files are not in home/studies/" in str(behind.oldest_reason)


def test_a_slow_mlflow_keeps_its_lease_and_what_it_took_is_acknowledged_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "LEASE", 0.5)
    monkeypatch.setattr(telling, "RENEW", 0.05)
    seen: list[tuple[int, bool]] = []

    def slow(what: str) -> None:
        time.sleep(0.3)
        other = store.claim_outbox("other", 30) is not None
        seen.append((store.behind().pending, other))

    mlflow = FakeMlflow(slow)
    assert teller(store, mlflow).publish_due().published == 6
    assert not any(other for _, other in seen)
    assert [pending for pending, _ in seen][-1] < 6
    assert mlflow.written == ALL


def test_extra_runs_and_pages_are_told_like_trials_and_a_page_that_is_not_here_waits_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "ELSEWHERE", 60.0)

    def fails(what: str) -> None:
        if what == "report":
            raise ElsewhereError("the page's files are not here")

    mlflow = FakeMlflow(fails)
    publisher = teller(store, mlflow)
    store.publish_page(1, "report")
    runs = [extra_run(Probe.SEED, amount=3, trial=3), extra_run(Probe.ROWS, amount=0.25, trial=3)]
    store.record_extra_runs(1, runs)
    store.publish_page(1, "champion")
    publish(publisher, 2)
    assert mlflow.written == [*ALL, "seed 3 of trial 3", "25 % of the rows of trial 3", "champion"]
    assert store.behind(1).oldest_reason == "the page's files are not here"
    assert store.behind(1).pending == 1
    mlflow.fails = lambda what: None
    store.publish_page(1, "report")  # made here
    publish(publisher, 1)
    assert (mlflow.written[-1], store.pending_facts()) == ("report", 0)


def test_a_poisoned_extra_run_holds_nothing_up(store: Store) -> None:
    mlflow = FakeMlflow(refuse("seed 1 of trial 0"))
    store.record_extra_runs(1, [extra_run(Probe.SEED, amount=number) for number in (1, 2)])
    publish(teller(store, mlflow), 1)
    assert mlflow.written == [*ALL, "seed 2 of trial 0"]


def test_a_studys_second_end_does_not_wait_for_its_page(store: Store) -> None:
    mlflow = FakeMlflow(refuse("report"))
    store.publish_page(1, "report")
    publish(teller(store, mlflow), 1)
    store.requeue(1)
    claim = store.claim("d", study_id=1)
    assert claim is not None
    small_study.finish(store, claim, winner=None, suffix="-2")
    publish(teller(store, mlflow), 1)
    assert mlflow.written[-1] == "end"
