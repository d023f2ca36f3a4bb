"""What the queue, the leases, the trials and the outbox should hold: a model in memory, for `test_stateful.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from search.pruner import Pruner
from storage.database import FURTHEST_AHEAD
from storage.records import FactKind, StudyRecord, StudyState, TrialState
from tests.faults.fake_database import FakeDatabase

OPTUNA = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAILED: "FAIL",
}


def to_come(moment: float | None, now: float) -> bool:
    """Whether a lease or a pause still lasts; one that ends too far ahead is from a clock that was set back since."""
    return moment is not None and now <= moment <= now + FURTHEST_AHEAD


@dataclass
class TrialModel:
    """
    Attributes:
        value: What Optuna has for it.
    """

    state: TrialState = TrialState.RUNNING
    curve: dict[int, float] = field(default_factory=dict)
    value: float | None = None


@dataclass
class StudyModel:
    """
    Attributes:
        pruner: Has seen everything that was ever recorded, in one life.
    """

    record: StudyRecord
    asked: int
    pruner: Pruner
    state: StudyState = StudyState.QUEUED
    token: int = 0
    leased_until: float | None = None
    cancel: bool = False
    publisher_token: int = 0
    published_until: float | None = None
    trials: dict[int, TrialModel] = field(default_factory=dict)

    def held(self, now: float) -> bool:
        return self.state is StudyState.RUNNING and to_come(self.leased_until, now)


@dataclass
class FactModel:
    study: int
    key: str
    kind: FactKind
    trial: int | None = None
    published: bool = False
    not_before: float = 0.0


@dataclass
class QueueModel:
    studies: dict[int, StudyModel] = field(default_factory=dict)
    facts: list[FactModel] = field(default_factory=list)

    def add_fact(self, study: int, key: str, kind: FactKind, trial: int | None = None) -> None:
        if all(fact.key != key for fact in self.facts):
            self.facts.append(FactModel(study, key, kind, trial))

    def claimable(self, now: float) -> StudyModel | None:
        """The oldest study that waits, or whose lease has run out."""
        for study in self.studies.values():
            if study.state is StudyState.QUEUED or (study.state is StudyState.RUNNING and not study.held(now)):
                return study
        return None

    def due(self, now: float, study: int | None = None) -> list[FactModel]:
        """Facts that can be published, in order; those about a study itself wait for one another."""
        due, waiting = [], set()
        for fact in self.facts:
            if fact.published or study not in (None, fact.study):
                continue
            if to_come(fact.not_before, now):
                waiting |= {fact.study} if fact.trial is None else set()
            elif fact.trial is not None or fact.study not in waiting:
                due.append(fact)
        return due

    def publishable(self, now: float) -> StudyModel | None:
        """The study with the oldest due fact that no publisher holds."""
        for fact in self.due(now):
            study = self.studies[fact.study]
            if not to_come(study.published_until, now):
                return study
        return None

    def check(self, database: FakeDatabase) -> None:
        """The tables hold just this: nothing lost, nothing doubled, nothing that an old token has written."""
        assert database.rows(
            "SELECT id, state, token, leased_until, cancel_requested, trials, publisher_token, published_until"
            " FROM neurosweep_study ORDER BY id"
        ) == [
            (id, s.state, s.token, s.leased_until, s.cancel, s.asked, s.publisher_token, s.published_until)
            for id, s in self.studies.items()
        ]
        assert database.rows(
            "SELECT study_id, number, state, epochs FROM neurosweep_trial ORDER BY study_id, number"
        ) == [(id, n, t.state, len(t.curve)) for id, s in self.studies.items() for n, t in sorted(s.trials.items())]
        assert database.rows(
            "SELECT study_id, trial, epoch, validation_metric FROM neurosweep_epoch ORDER BY study_id, trial, epoch"
        ) == [(id, n, epoch, value) for id, n, epoch, value in self._epochs()]
        assert database.rows(
            "SELECT study_id, key, kind, published, not_before FROM neurosweep_outbox ORDER BY id"
        ) == [(fact.study, fact.key, fact.kind, fact.published, fact.not_before) for fact in self.facts]
        self._check_optuna(database)

    def _check_optuna(self, database: FakeDatabase) -> None:
        ids = {study.record.label: id for id, study in self.studies.items()}
        trials = database.rows(
            "SELECT study_name, number, state, value FROM trials JOIN studies USING (study_id)"
            " LEFT JOIN trial_values USING (trial_id)"
        )
        assert sorted((ids[name], *row) for name, *row in trials) == [
            (id, n, OPTUNA[t.state], t.value) for id, s in self.studies.items() for n, t in sorted(s.trials.items())
        ]
        steps = database.rows(
            "SELECT study_name, number, step, intermediate_value FROM trial_intermediate_values"
            " JOIN trials USING (trial_id) JOIN studies USING (study_id)"
        )
        assert sorted((ids[name], *row) for name, *row in steps) == self._epochs()

    def _epochs(self) -> list[tuple[Any, ...]]:
        return [
            (id, number, epoch, value)
            for id, study in self.studies.items()
            for number, trial in sorted(study.trials.items())
            for epoch, value in sorted(trial.curve.items())
        ]
