"""How a study ends, on a real database, with real trainers in this process as its workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from neurosweep.errors import BadInputError
from search import engine
from search import lease as lease_module
from search.engine import Session, workbench
from search.placement import Node, WorkerShape
from search.places import Places
from search.progress import Progress
from search.spec import StudySpec
from search.stop import Stop
from storage.records import Claim, FactKind, NewStudy, StudyState, TrialState
from storage.store import Store
from tests.search.in_process_pool import InProcessPool
from trainer.work import SegmentResult, TrialWork

STUDY = {
    "name": "iris",
    "data": {"source": "iris"},
    "metric": "log_loss",
    "search": {"sampler": "random", "pruner": "none"},
    "space": {"layers": 1, "neurons": 4},
    "budget": {"trials": 6, "epochs": 2},
}


class OnePlace(InProcessPool):
    """A pool of one worker that is open already."""

    @property
    def nodes(self) -> list[Node]:
        return [Node(cpus=1.0, gpus=0.0)]

    def open(self, shape: WorkerShape) -> None:
        """There is nothing to bring up."""


class NoPublisher:
    """What is published stays in the outbox."""

    made: ClassVar[list[NoPublisher]] = []

    def __init__(self, places: Places) -> None:
        self.gone = False
        self.drains: list[int] = []
        self.made.append(self)

    def order_drain(self, study_id: int) -> None:
        self.drains.append(study_id)

    def drained(self, stop: threading.Event) -> str | None:
        return None

    def ended(self) -> bool:
        return self.gone

    def order_stop(self) -> None:
        self.gone = True

    def stop(self) -> None:
        self.gone = True


class Job:
    """One study and the session that works on it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(f"sqlite:///{folder}/n.db")
        spec = StudySpec.from_mapping(STUDY)
        self.id = self.store.submit(NewStudy(name="iris", spec=spec.to_mapping(), text="", trials=6)).id
        self.places = Places(home=folder, database="", tracking="", ray=None)
        self.stop = Stop()
        self.pool = OnePlace()
        self.on_progress: Callable[[Progress], None] = lambda progress: None

    def work(self) -> Claim:
        claim = self.store.claim("dispatcher", study_id=self.id)
        assert claim is not None
        with Session(self.places, lambda progress: self.on_progress(progress), self.stop) as session:
            session._pool = self.pool
            session.work(self.store, claim)
        return claim

    @property
    def state(self) -> StudyState:
        return self.store.study(self.id).state

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.store.trials(self.id)]

    def stop_after(self, trial: int) -> None:
        def change(each: TrialWork, result: SegmentResult) -> SegmentResult:
            if each.trial >= trial:
                self.stop.set()
            return result

        self.pool.change = change

    def facts(self) -> list[FactKind]:
        claim = self.store.claim_outbox("test", 0.0)
        return [] if claim is None else [fact.kind for fact in self.store.facts(claim, 100)]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.setattr(engine, "Publisher", NoPublisher)
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.02)
    made = Job(tmp_path)
    yield made
    made.store.close()


def test_a_cancel_that_is_heard_after_the_last_look_leaves_no_trial_running(job: Job) -> None:
    job.stop_after(1)

    def cancel_when_all_is_halted(progress: Progress) -> None:
        if job.stop.is_set() and progress.stage == "training" and not progress.workers:
            job.store.request_cancel(job.id)
            time.sleep(1.0)  # many heartbeats

    job.on_progress = cancel_when_all_is_halted
    job.work()
    assert job.state is StudyState.CANCELLED
    assert job.states() == [TrialState.COMPLETE] * 2 + [TrialState.FAILED] * 2


def test_mlflow_is_told_of_a_stop(job: Job) -> None:
    job.stop_after(1)
    job.work()
    assert job.state is StudyState.STOPPED
    assert job.facts() == [FactKind.STUDY_STARTED, FactKind.TRIAL_ENDED, FactKind.TRIAL_ENDED, FactKind.STUDY_ENDED]


def test_serve_starts_a_publisher_again_that_went_away(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(engine, "REVIVE_SECONDS", 0.5)
    monkeypatch.setattr(Session, "pool", lambda session: job.pool)
    monkeypatch.setattr(NoPublisher, "made", [])
    job.store.request_cancel(job.id)
    serving = threading.Thread(
        target=engine.serve, args=(job.store, job.places, lambda progress: None, job.stop), daemon=True
    )
    began = time.monotonic()
    serving.start()
    while not NoPublisher.made:
        time.sleep(0.01)
    NoPublisher.made[0].gone = True
    while len(NoPublisher.made) < 2 and time.monotonic() - began < 10:
        time.sleep(0.01)
    assert time.monotonic() - began >= 0.5  # not again and again, where it can't run
    assert len(NoPublisher.made) == 2
    job.stop.set()
    serving.join(10)
    assert not serving.is_alive()
    assert all(publisher.gone for publisher in NoPublisher.made)


def test_serve_puts_back_what_it_leaves_unfinished_so_that_the_next_one_goes_on(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "pool", lambda session: job.pool)
    monkeypatch.setattr(Session, "_close_pool", lambda session: None)
    job.stop_after(1)
    engine.serve(job.store, job.places, lambda progress: None, job.stop)
    assert job.state is StudyState.QUEUED
    assert job.states().count(TrialState.RUNNING) == 2

    job.stop.clear()
    job.pool.change = lambda work, result: result
    job.work()
    assert job.store.study(job.id).state is StudyState.FINISHED
    assert job.states() == [TrialState.COMPLETE] * 6


def test_a_stop_while_the_data_are_read_starts_no_trial(job: Job) -> None:
    job.on_progress = lambda progress: job.stop.set()
    job.work()
    assert (job.state, job.states()) == (StudyState.STOPPED, [])


def test_a_workbench_has_the_studys_data_and_starts_workers_when_they_are_wanted(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.work()
    started = []

    def start(address: str | None) -> OnePlace:
        started.append(address)
        return job.pool

    monkeypatch.setattr("search.pool.Pool.start", start)
    study, stages = job.store.study(job.id), list[str]()
    with workbench(job.store, study, job.places, lambda progress: stages.append(progress.stage), job.stop) as bench:
        assert started == []
        assert (bench.dataset.split_hash, bench.spec.metric, bench.spec.task) == (
            *(study.split_hash, "log_loss", "classification"),
        )
        assert bench.pool is bench.pool is job.pool
    assert started == [None]
    assert stages == ["reading data", "publishing to MLflow"]
    publisher = NoPublisher.made[-1]
    assert (publisher.drains, publisher.gone) == ([job.id], True)


def test_a_workbench_refuses_data_that_have_changed(job: Job) -> None:
    job.work()
    study = replace(job.store.study(job.id), split_hash="0" * 64)
    with pytest.raises(BadInputError, match="not those"):
        workbench(job.store, study, job.places, lambda progress: None, job.stop).__enter__()
    assert NoPublisher.made[-1].gone
