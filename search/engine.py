"""The main job: claim a study, work on it with the pool, choose the winner, open the test split once, publish.

The session around it (Ray's workers and the publisher's process) stays from study to study.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from neurosweep.errors import (
    BadInputError,
    DiskFullError,
    InterruptedStudyError,
    LeaseLostError,
    NeurosweepError,
    StudyTakenError,
    UnreachableError,
)
from neurosweep.failpoints import reach
from search.background import in_background, wait_for
from search.checkpoint import Checkpoint
from search.checkpoint_store import CheckpointStore
from search.disk import check_room
from search.dispatcher import Dispatcher, Signals
from search.failures import FailureBudget
from search.knowledge import earlier_trials
from search.lease import Lease
from search.no_gain import Noise, seeds_noise
from search.packing import Packing
from search.patience import Patience
from search.placement import fit_workers
from search.places import Places
from search.progress import Progress
from search.publishing import Publisher
from search.spec import StudySpec
from search.stop import Stop
from search.study import Proposals
from search.validation import read_data
from storage import facts
from storage.records import Claim, StudyRecord, StudyState, TrialRecord, TrialState
from storage.store import Store
from trainer.data.dataset import Dataset
from trainer.work import OUT_OF_MEMORY, Metric

if TYPE_CHECKING:
    from search.pool import Pool

IDLE_SECONDS = 1.0
"""How often `serve` looks into an empty queue."""

REVIVE_SECONDS = 60.0
"""A publisher that has gone away is started again no sooner than this after the last one's start."""

OnProgress = Callable[[Progress], None]


class _CancelledError(InterruptedStudyError):
    """A cancel that is heard while the winner is chosen, when no trial is under way."""


def run_study(store: Store, study_id: int, places: Places, on_progress: OnProgress, stop: Stop) -> StudyRecord:
    """Works on one study in this process until it ends.

    Returns:
        The study as it ended: finished, failed, stopped or cancelled.

    Raises:
        StudyTakenError: Another process works on it.
        BadInputError: Its data don't fit.
        DiskFullError: There is too little room to begin.
        NeurosweepError: What else kept it from running; the study is marked as failed.
    """
    check_room(places.written_folders())
    claim = store.claim(_dispatcher_name(), study_id=study_id)
    if claim is None:
        raise StudyTakenError(
            "Another process is working on this study (`neurosweep watch` shows it), or died less than 30 s ago: then "
            "try again in half a minute."
        )
    with Session(places, on_progress, stop) as session:
        session.work(store, claim)
        session.drain(store, claim.study)
    return store.study(study_id)


def serve(store: Store, places: Places, on_progress: OnProgress, stop: Stop) -> None:
    """Works on queued studies, the oldest first, until `stop` is set. A study that can't run does not end it, nor does
    a database that is away for a while."""

    def tell(why: str) -> None:
        on_progress(Progress(label="the queue", metric="", stage=why, total=0))

    patience = Patience(stop.is_set, tell)

    def claim_next() -> Claim | None:
        check_room(places.written_folders())
        return store.claim(_dispatcher_name())

    with contextlib.suppress(InterruptedStudyError), Session(places, on_progress, stop) as session:
        session.pool()
        while not stop.is_set():
            session.revive_publisher()
            claim = None
            try:
                claim = patience(claim_next)
                if claim is None:
                    stop.wait(IDLE_SECONDS)
                    continue
                session.work(store, claim)
                if store.study(claim.study.id).state is StudyState.STOPPED:
                    store.requeue(claim.study.id)  # nobody wanted it to stop: the next `serve` goes on with it
            except LeaseLostError:
                continue
            except NeurosweepError as error:
                label = claim.study.label if claim is not None else "the queue"
                on_progress(Progress(label=label, metric="", stage=f"failed: {error}", total=0))


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """What it takes to go on with a study that has ended.

    Attributes:
        spec: With its task and metric filled in.
        dataset: The very splits that the study has used.
    """

    spec: StudySpec
    dataset: Dataset
    on_progress: OnProgress
    session: Session

    @property
    def pool(self) -> Pool:
        """Workers as the study file asks for them, brought up at the first call; they hold no data yet."""
        return self.session.ready_pool(self.spec)


@contextlib.contextmanager
def workbench(
    store: Store, study: StudyRecord, places: Places, on_progress: OnProgress, stop: Stop
) -> Iterator[Workbench]:
    """The data of a study, workers where they are wanted, and MLflow: what was recorded for it is told at the end.

    To be used from the main thread.

    Raises:
        BadInputError: The data can't be read any more, or are others than those of the study.
    """
    from search.insight.winner import studied_data

    on_progress(Progress(label=study.label, metric="", stage="reading data", total=study.trials))
    with Session(places, on_progress, stop) as session:
        spec, dataset = studied_data(study)
        yield Workbench(spec=spec, dataset=dataset, on_progress=on_progress, session=session)
        session.drain(store, study)


class Session:
    """What stays warm between studies. A context manager; leaving it ends the workers and the publisher."""

    def __init__(self, places: Places, on_progress: OnProgress, stop: Stop) -> None:
        self._places = places
        self._on_progress = on_progress
        self._stop = stop
        self._pool: Pool | None = None
        self._publisher = Publisher(places)
        self._publisher_started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.order_stop()  # it ends while Ray does
        self._close_pool()
        self._publisher.stop()

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def pool(self) -> Pool:
        """The workers' pool, brought up at the first call.

        Ray's processes end with the thread that started them, not only with the process: this must be the main thread.
        """
        from search.pool import Pool

        if self._pool is None:
            with self._stop.breaks():  # Ray takes seconds to start
                self._pool = Pool.start(self._places.ray)
            self._pool.stopped = self._stop.is_set
            if self._places.ray is None:
                # The default workers import torch while the data are still being read.
                self._pool.open(fit_workers("auto", 1.0, "auto", self._pool.nodes))
        return self._pool

    def revive_publisher(self) -> None:
        """Starts the publisher again where it has ended (killed, or without its database): the outbox has waited."""
        if time.monotonic() - self._publisher_started >= REVIVE_SECONDS:
            self._replace_dead_publisher()

    def _replace_dead_publisher(self) -> None:
        if self._publisher.ended():
            self._publisher.stop()
            self._publisher = Publisher(self._places)
            self._publisher_started = time.monotonic()

    def work(self, store: Store, claim: Claim) -> None:
        """Works on a claimed study to its end, and records how it ended.

        Raises:
            LeaseLostError: Another dispatcher has taken it over.
            NeurosweepError: It could not be run; recorded as failed with this message.
        """
        with Lease(store, claim) as lease:
            patience = Patience(self._stop.is_set, lambda why: self._tell_of(claim, lease, why))
            try:
                self._work(store, claim, lease, patience)
            except LeaseLostError:
                raise
            except _CancelledError:
                _finish(store, claim, lease, patience, StudyState.CANCELLED)
            except InterruptedStudyError:
                _finish(store, claim, lease, patience, StudyState.STOPPED)
            except Exception as error:
                if self._stop.is_set() and isinstance(error, UnreachableError | DiskFullError):
                    raise  # nothing can be written; the lease ends by itself, and `resume` goes on
                ours = isinstance(error, NeurosweepError)
                message = str(error) if ours else f"{type(error).__name__}: {error}"
                _finish(store, claim, lease, patience, StudyState.FAILED, error=message)
                raise

    def _tell_of(self, claim: Claim, lease: Lease, why: str) -> None:
        self._show(Progress(label=claim.study.label, metric="", stage=why, total=claim.study.trials), lease)

    def drain(self, store: Store, study: StudyRecord) -> None:
        """Ends the pool, and waits until MLflow has all of the study, or does not answer, or the user won't wait."""
        if self._stop.is_set():
            return
        summary = store.summary(study.id)
        progress = Progress(
            label=study.label,
            metric=str(summary.study.spec.get("metric") or ""),
            stage="publishing to MLflow",
            total=summary.study.trials,
            complete=summary.counts.get(TrialState.COMPLETE, 0),
            pruned=summary.counts.get(TrialState.PRUNED, 0),
            failed=summary.counts.get(TrialState.FAILED, 0),
            best_value=summary.best,
        )
        self._on_progress(progress)
        self._replace_dead_publisher()
        self._publisher.order_drain(study.id)
        # Ray takes more than a second to end: the publisher works meanwhile.
        self._close_pool()
        behind = self._publisher.drained(self._stop)
        if behind is not None:
            self._on_progress(replace(progress, stage=f"finished, but {behind}"))

    def _work(self, store: Store, claim: Claim, lease: Lease, patience: Patience) -> None:
        started = time.monotonic() - claim.study.worked
        spec, dataset, ending = self._read(claim)
        if self._stop.is_set():
            raise InterruptedStudyError("Told to stop.")
        metric = Metric(spec.metric or Metric.ERROR)
        label, study_id, trials = claim.study.label, claim.study.id, claim.study.trials
        self._on_progress(Progress(label=label, metric=metric, stage="starting workers", total=trials))
        pool = self.ready_pool(spec)
        address = self._places.checkpoints_of(claim.study.uid)
        pool.load(dataset, address)
        started_fact = facts.started(claim.study)
        patience(lambda: store.started(claim, dataset.split_hash, spec.to_mapping(), facts=(started_fact,)))
        proposals, known = self._known(store, claim, spec, dataset, patience)
        checkpoints = CheckpointStore(address)
        checkpoint = Checkpoint(checkpoints)
        dispatcher = Dispatcher(
            claim=claim,
            spec=spec,
            metric=metric,
            store=store,
            pool=pool,
            proposals=proposals,
            checkpoint=checkpoint,
            packing=Packing.of(claim.study.trials, dataset, pool),
            name_worker=_worker_name,
            known=known,
            known_epochs=patience(lambda: store.epochs(study_id, _running(known))),
            on_progress=lambda progress: self._show(progress, lease),
            signals=Signals(stop=self._stop.is_set, cancel=lease.cancelled, renew=lease.check),
            started=started,
            noise=Noise(
                metric=metric,
                rows=len(dataset.validation),
                seeds=seeds_noise(patience(lambda: store.extra_runs(study_id))),
            ),
        )
        dispatcher.work()
        if lease.cancelled():
            state = StudyState.CANCELLED
            dispatcher.cancel()
            _finish(store, claim, lease, patience, state)
        elif self._stop.is_set():
            raise InterruptedStudyError("Told to stop.")
        elif dispatcher.failure is not None or proposals.best() is None:
            state = StudyState.FAILED
            error = dispatcher.failure or patience(lambda: _why_none(store, claim))
            _finish(store, claim, lease, patience, state, error=error)
        else:
            state = StudyState.FINISHED
            reach("testing_winner")

            def show_stage(stage: str) -> None:
                lease.check()
                if lease.cancelled():
                    raise _CancelledError("The study was cancelled.")
                self._on_progress(dispatcher.progress(stage))

            result = patience(
                lambda: ending.result().conclude(
                    claim=claim,
                    spec=spec,
                    metric=metric,
                    dataset=dataset,
                    pool=pool,
                    proposals=proposals,
                    checkpoint=checkpoint,
                    store=store,
                    trials=store.trials(study_id),
                    epochs=store.epochs(study_id),
                    folder=self._places.folder_of(claim.study.uid),
                    started=started,
                    stopped_for=dispatcher.budget.stopped_for,
                    on_stage=show_stage,
                )
            )
            lease.check()
            reach("before_finish")
            _finish(store, claim, lease, patience, state, result=result)
        with contextlib.suppress(OSError):  # what is left, `neurosweep doctor` finds
            checkpoints.clear()
        self._on_progress(dispatcher.progress(state.value))

    def _known(
        self, store: Store, claim: Claim, spec: StudySpec, dataset: Dataset, patience: Patience
    ) -> tuple[Proposals, list[TrialRecord]]:
        """The study's trials so far, for its sampler and as records."""
        known = patience(lambda: store.trials(claim.study.id))
        theirs = patience(lambda: store.optuna_trials(claim.study.id))
        earlier = patience(lambda: earlier_trials(store, spec, dataset.split_hash, claim.study.created_at))
        proposals = Proposals(
            spec,
            dataset.input_shape,
            claim.study.label,
            theirs,
            outputs=dataset.outputs,
            rows=len(dataset.train),
            too_large=[trial.number for trial in known if (trial.error or "").startswith(OUT_OF_MEMORY)],
            earlier=earlier,
            would_stop={trial.number: trial.would_stop for trial in known if trial.would_stop is not None},
        )
        return proposals, known

    def _show(self, progress: Progress, lease: Lease) -> None:
        lease.notice = progress.stage if progress.stage.startswith("waiting") else None
        self.revive_publisher()
        self._on_progress(progress)

    def _read(self, claim: Claim) -> tuple[StudySpec, Dataset, Future[ModuleType]]:
        """The study with what its data say, its data, and the room for its end, which is still being imported."""
        label = claim.study.label
        self._on_progress(Progress(label=label, metric="", stage="reading data", total=claim.study.trials))
        # Ray takes seconds to start; the data are read meanwhile.
        reading = in_background(lambda: read_data(StudySpec.from_mapping(claim.study.spec)), "data")
        # So are the libraries that the end needs (plots, statistics): more than a second of imports.
        ending = in_background(lambda: importlib.import_module("search.outcome"), "outcome")
        self.pool()
        spec, dataset = wait_for(reading, self._stop.is_set)
        if claim.study.split_hash not in (None, dataset.split_hash):
            raise BadInputError(
                "The data are not those that this study began with: its splits would mix. Submit a new study.",
                spec.data.source,
            )
        return spec, dataset, ending

    def ready_pool(self, spec: StudySpec) -> Pool:
        """The pool, with the workers that a study asks for."""
        pool, workers = self.pool(), spec.workers
        pool.open(fit_workers(workers.count, workers.cpus, workers.gpus, pool.nodes))
        return pool


def _finish(
    store: Store,
    claim: Claim,
    lease: Lease,
    patience: Patience,
    state: StudyState,
    *,
    error: str | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """Records how a claim ended, with the fact that says so."""
    ended = (facts.ended(claim.study, claim.token),)
    patience(lambda: store.finish(claim, state, error=error, result=result, facts=ended, worked=lease.worked()))


def _running(trials: Sequence[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials if trial.state is TrialState.RUNNING]


def _why_none(store: Store, claim: Claim) -> str:
    """The most frequent reason among the failed trials, with its count."""
    trials = store.trials(claim.study.id)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if not failed:
        return f"none of {len(trials)} trials was trained to its end: give the study more time or more trials"
    budget = FailureBudget()
    for trial in failed:
        budget.add(trial.error or "no reason was given")
    return f"none of {len(trials)} trials was good; {budget.most_frequent()}"


def _dispatcher_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _worker_name(worker: int) -> str:
    return f"worker-{worker + 1}"
