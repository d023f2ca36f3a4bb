"""One study in a database of its own, and the dispatcher that works on it, for the dispatcher's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from search.budget import StoppedFor
from search.checkpoint import Checkpoint
from search.checkpoint_store import CheckpointStore
from search.clock import CLOCK, Clock
from search.dispatcher import Dispatcher, Signals
from search.no_gain import Noise
from search.progress import Progress
from search.spec import StudySpec
from search.study import Proposals
from storage.records import Claim, EpochRow, NewStudy, TrialRecord, TrialState
from storage.store import Store
from tests.search.in_process_pool import InProcessPool, packing
from trainer.data.dataset import Dataset
from trainer.settings import Settings
from trainer.work import Metric, SegmentResult, TrialWork
from trainer.worker import Trainer


class Study:
    """One study in a database of its own, and whoever works on it."""

    def __init__(self, folder: Path, data: Dataset, **changes: Any) -> None:
        budget = {"trials": 6, "epochs": 9, **changes.pop("budget", {})}
        search = {"sampler": "random", "pruner": "none", **changes.pop("search", {})}
        space = {"layers": 1, "neurons": {"low": 4, "high": 16}, "batch_size": 32, **changes.pop("space", {})}
        mapping = {
            "name": "iris",
            "data": {"source": "iris"},
            "metric": "log_loss",
            "budget": budget,
            "search": search,
            "space": space,
            **changes,
        }
        self.spec = StudySpec.from_mapping(mapping).resolved(data.task)
        self.data = data
        self.folder = folder
        self.url = f"sqlite:///{folder}/n.db"
        self.store = Store.open(self.url)
        new = NewStudy(name="iris", spec=self.spec.to_mapping(), text="", trials=self.spec.budget.trials)
        self.id = self.store.submit(new).id
        self.shown: list[Progress] = []
        self.stop = False
        self.cancel = False
        self.failure: str | None = None
        self.stopped_for: StoppedFor | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(CheckpointStore(str(self.folder)))

    def claim(self) -> Claim:
        claim = self.store.claim("dispatcher", study_id=self.id)
        assert claim is not None
        return claim

    def work(
        self,
        pool: InProcessPool,
        claim: Claim | None = None,
        renew: Callable[[], None] = lambda: None,
        started: float | None = None,
        clock: Clock = CLOCK,
    ) -> Proposals:
        """What the engine does between the claim and the study's end."""
        claim = claim or self.claim()
        pool.load(self.data)
        proposals = Proposals(
            self.spec,
            self.data.input_shape,
            "iris",
            self.store.optuna_trials(self.id),
            would_stop={trial.number: trial.would_stop for trial in self.trials() if trial.would_stop is not None},
        )
        dispatcher = Dispatcher(
            claim=claim,
            spec=self.spec,
            metric=Metric(self.spec.metric or ""),
            store=self.store,
            pool=pool,
            proposals=proposals,
            checkpoint=self.checkpoint,
            packing=packing(claim.study.trials, pool, self.data),
            name_worker=lambda worker: f"worker-{worker + 1}",
            known=self.store.trials(self.id),
            known_epochs=[row for trial in self.running() for row in self.epochs(trial)],
            on_progress=self.shown.append,
            signals=Signals(stop=lambda: self.stop, cancel=lambda: self.cancel, renew=renew),
            started=clock.monotonic() if started is None else started,
            noise=Noise(metric=Metric(self.spec.metric or ""), rows=len(self.data.validation)),
            clock=clock,
        )
        dispatcher.work()
        self.failure = dispatcher.failure
        self.stopped_for = dispatcher.budget.stopped_for
        if self.cancel:
            dispatcher.cancel()
        return proposals

    def trials(self) -> list[TrialRecord]:
        return self.store.trials(self.id)

    def running(self) -> list[int]:
        return [trial.number for trial in self.trials() if trial.state is TrialState.RUNNING]

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials()]

    def epochs(self, trial: int) -> list[EpochRow]:
        return self.store.epochs(self.id, [trial])

    def optuna(self) -> optuna.Study:
        """Read by Optuna itself."""
        return optuna.load_study(study_name="iris", storage=self.url)


def alone(study: Study, trial: TrialRecord) -> SegmentResult:
    """A trial of the database, trained by nobody's worker from its settings and its seed."""
    data, epochs = study.data, study.spec.budget.epochs
    trainer = Trainer(
        data.train, data.validation, data.preprocessing, data.task, data.input_shape, data.outputs, device="cpu"
    )
    work = TrialWork(
        trial=trial.number,
        settings=Settings.from_json(trial.settings),
        seed=trial.seed,
        metric=Metric.LOG_LOSS,
        epochs=epochs,
        until=epochs,
    )
    return trainer.train([work], lambda: False, lambda trial, epoch: None)[0]


def told(trials: list[TrialRecord]) -> list[Any]:
    """All of the trials that does not depend on the clock."""
    return [(t.number, t.params, t.seed, t.state, t.train, t.validation, t.epochs, t.best_epoch) for t in trials]
