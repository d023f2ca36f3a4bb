"""Several studies in one database, worked on by the engine itself; its workers are real trainers in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search import engine, outcome
from search.engine import Session, run_study
from search.places import Places
from search.progress import Progress
from search.spec import StudySpec
from search.stop import Stop
from storage.records import NewStudy, StudyRecord, TrialRecord
from storage.store import Store
from tests.search.test_engine import NoPublisher, OnePlace
from trainer.work import Outcome, SegmentResult

IRIS: dict[str, Any] = {
    "name": "iris",
    "data": {"source": "iris"},
    "metric": "log_loss",
    "search": {"pruner": "none"},
    "space": {"layers": {"low": 1, "high": 2}, "neurons": {"low": 4, "high": 16}, "batch_size": 32},
    "budget": {"trials": 14, "epochs": 2},
}


class Workshop:
    """A database, and who works on its studies.

    Attributes:
        stop: Ends the work, once `pool.change` or a test sets it.
        shown: All progress.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store.open(f"sqlite:///{folder}/n.db")
        self.places = Places(home=folder, database=f"sqlite:///{folder}/n.db", tracking="", ray=None)
        self.pool = OnePlace()
        self.stop = Stop()
        self.shown: list[Progress] = []
        monkeypatch.setattr(engine, "Publisher", NoPublisher)
        monkeypatch.setattr(Session, "pool", lambda session: self.pool)
        monkeypatch.setattr(Session, "drain", lambda session, store, study: None)
        # What these tests are not about and takes a second: the plots, and the export of the winner's network.
        monkeypatch.setattr(outcome, "draw", lambda folder, **drawn: None)
        monkeypatch.setattr(self.pool, "export", lambda settings, weights: lambda: b"a network")

    def spec(self, **changes: Any) -> StudySpec:
        """A study of the irises."""
        sections = {key: {**IRIS[key], **changes.pop(key, {})} for key in ("data", "search", "space", "budget")}
        return StudySpec.from_mapping({**IRIS, **sections, **changes})

    def submit(self, **changes: Any) -> StudyRecord:
        """Puts a study of the irises into the queue."""
        spec = self.spec(**changes)
        new = NewStudy(name=spec.name, spec=spec.to_mapping(), text=spec.to_yaml(), trials=spec.budget.trials)
        return self.store.submit(new)

    def work(self, study: StudyRecord) -> StudyRecord:
        """Works on a study until it ends or `stop` is set."""
        return run_study(self.store, study.id, self.places, self.shown.append, self.stop)

    def run(self, **changes: Any) -> StudyRecord:
        return self.work(self.submit(**changes))

    def trials(self, study: StudyRecord) -> list[TrialRecord]:
        return self.store.trials(study.id)

    def stop_after(self, trial: int) -> None:
        """Sets `stop` once a trial of this or a higher number has come back."""

        def change(work: Any, result: Any) -> Any:
            if work.trial >= trial:
                self.stop.set()
            return result

        self.pool.change = change

    def failed(self, result: SegmentResult) -> SegmentResult:
        """As if the trial had failed."""
        return replace(result, outcome=Outcome.FAILED, reason="it was to fail")

    def go_on(self) -> None:
        """Nothing stops any more."""
        self.pool.change = lambda work, result: result
        self.stop.clear()
