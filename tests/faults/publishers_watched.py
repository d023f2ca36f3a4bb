"""Publishers that can be stopped in the middle of a request to MLflow; the model watches each use of the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import greenlet
import pytest
from mlflow import MlflowException

from neurosweep.errors import LeaseLostError
from storage import mlflow_door, telling
from storage.facts import study_key, trial_key
from storage.projection import KEY, trial_content
from storage.publisher import Publisher
from storage.records import Fact, MlflowRun, OutboxClaim
from storage.store import Store
from tests.faults.fake_database import FakeDatabase
from tests.faults.fake_mlflow import FakeClient, FakeMlflow
from tests.faults.queue_model import FactModel, QueueModel


class Crash(BaseException):
    """The process is killed."""


class Surprise(BaseException):
    """What must not happen here; a publisher would take a mere exception for MLflow's refusal."""


class WatchedStore(Store):
    """A publisher's store; the model says beforehand what each call will find."""

    model: QueueModel
    database: FakeDatabase

    def claim_outbox(self, publisher: str, lease_seconds: float) -> OutboxClaim | None:
        now = self.database.now()
        free = self.model.publishable(now)
        claim = super().claim_outbox(publisher, lease_seconds)
        if free is None:
            assert claim is None
            return None
        assert claim is not None
        assert (claim.study.id, claim.token) == (free.record.id, free.publisher_token + 1)
        free.publisher_token, free.published_until = claim.token, now + lease_seconds
        return claim

    def renew_outbox(self, claim: OutboxClaim, lease_seconds: float) -> None:
        self._held(claim, lambda: super(WatchedStore, self).renew_outbox(claim, lease_seconds))
        self.model.studies[claim.study.id].published_until = self.database.now() + lease_seconds

    def release_outbox(self, claim: OutboxClaim) -> None:
        self._held(claim, lambda: super(WatchedStore, self).release_outbox(claim))
        self.model.studies[claim.study.id].published_until = None

    def facts(self, claim: OutboxClaim, limit: int) -> list[Fact]:
        found = super().facts(claim, limit)
        assert [fact.key for fact in found] == [
            fact.key for fact in self.model.due(self.database.now(), claim.study.id)[:limit]
        ]
        return found

    def published(self, claim: OutboxClaim, keys: Sequence[str]) -> None:
        self._held(claim, lambda: super(WatchedStore, self).published(claim, keys))
        for fact in self._facts(keys):
            fact.published = True

    def postponed(self, claim: OutboxClaim, key: str, reason: str, delay: float) -> None:
        self._held(claim, lambda: super(WatchedStore, self).postponed(claim, key, reason, delay))
        for fact in self._facts([key]):
            fact.not_before = self.database.now() + delay

    def refused(self, claim: OutboxClaim, fact: Fact, reason: str, delay: float, set_aside: bool) -> None:
        raise Surprise(f"{fact.key}: {reason}")

    def set_run(self, claim: OutboxClaim, run: MlflowRun) -> None:
        self._held(claim, lambda: super(WatchedStore, self).set_run(claim, run))

    def _held(self, claim: OutboxClaim, write: Callable[[], None]) -> None:
        """With the newest token it goes through; with an older one it raises."""
        if claim.token == self.model.studies[claim.study.id].publisher_token:
            write()
            return
        with pytest.raises(LeaseLostError) as lost:
            write()
        raise lost.value

    def _facts(self, keys: Sequence[str]) -> list[FactModel]:
        return [fact for fact in self.model.facts if fact.key in keys]


class OneBeat:
    """In place of a heart's event: it is time for one beat."""

    def __init__(self) -> None:
        self._beaten = False

    def wait(self, seconds: float) -> bool:
        self._beaten = not self._beaten
        return not self._beaten

    def is_set(self) -> bool:
        return False


class Heart(telling._Held):
    """An outbox's heartbeat that beats when it is told to."""

    def __enter__(self) -> Self:
        self._ended = OneBeat()  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def beat(self) -> None:
        if self._lost is None:
            self._beat()


class PublisherSeat:
    """One publisher. What it does at a time goes on in a greenlet, which its requests to MLflow may leave."""

    def __init__(self, database: FakeDatabase, model: QueueModel, server: FakeMlflow) -> None:
        store = WatchedStore(database.engine)
        store.model, store.database = model, database
        self._server = server
        self._publisher = Publisher(store, "fake", Path("/nowhere"))
        self._turn: greenlet.greenlet | None = None
        self._left = 0
        self._then = "sleep"
        self._heart: Heart | None = None

    def beat(self) -> None:
        """A slow MLflow does not keep its heart from beating; a sleep of the whole process does."""
        if self._turn is not None and self._then == "slow" and self._heart is not None:
            self._heart.beat()

    def go_on(self, requests: int, then: str) -> str:
        """Lets it make so many requests, then sleep before the next one, or wait for it (``slow``), or lose it, or only
        its answer, or be killed after it. Returns ``asleep``, ``crashed`` or ``done``."""
        self._left, self._then = requests, then
        if self._turn is None:
            self._turn = greenlet.greenlet(self._publish)
        # Publishers share a process here: the one whose turn it is has the client.
        mlflow_door.connect = lambda tracking: FakeClient(self._server, self._wire)
        telling._Held = self._new_heart  # type: ignore[assignment, misc]
        try:
            self._turn.switch()
        except Crash:
            self._turn = None
            return "crashed"
        if self._turn.dead:
            self._turn = None
            return "done"
        return "asleep"

    def kill(self) -> None:
        if self._turn is not None:
            with pytest.raises(Crash):
                self._turn.throw(Crash())
            self._turn = None

    def _new_heart(self, store: Store, claim: OutboxClaim) -> Heart:
        self._heart = Heart(store, claim)
        return self._heart

    def _publish(self) -> None:
        self._publisher.publish_due()

    def _wire(self, name: str, request: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left >= 0:
            return request()
        if self._then in ("sleep", "slow"):
            greenlet.getcurrent().parent.switch()
            return self._wire(name, request)
        then, self._left = self._then, 10_000
        if then == "lost":
            raise MlflowException("the request was lost")
        answer = request()
        if then == "crash":
            raise Crash
        if then == "stored":
            raise MlflowException("the answer was lost")
        return answer


def check_mlflow(server: FakeMlflow, store: Store, model: QueueModel) -> None:
    """MLflow holds what the outbox has told it: each run once, each metric once."""
    keys = sorted(run.tags[KEY] for run in server.active_runs())
    wanted = set()
    for study in model.studies.values():
        told = [fact for fact in model.facts if fact.study == study.record.id]
        if told:
            wanted.add(study_key(study.record))
        wanted |= {trial_key(study.record, fact.trial) for fact in told if fact.trial is not None}
    assert keys == sorted(wanted)
    runs = {run.tags[KEY]: run for run in server.active_runs()}
    for study in model.studies.values():
        record = store.study(study.record.id)
        epochs = store.epochs(record.id)
        for trial in store.trials(record.id):
            run = runs.get(trial_key(record, trial.number))
            if run is None:
                continue
            parent = runs[study_key(record)].run_id
            content = trial_content(record, trial, [row for row in epochs if row.trial == trial.number], parent)
            assert run.points == {(p.name, p.value, p.at, p.step) for p in content.points}
            assert (run.status, run.end_time) == (content.status, content.ended)
