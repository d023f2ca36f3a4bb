"""The facts that MLflow is told, and their keys: unique among all databases, so that telling one twice is harmless.

A key is of ``[a-z0-9-]`` only: quotes in a filter of MLflow's can't be escaped.
"""

from __future__ import annotations

from datetime import datetime

from storage.records import Fact, FactKind, StudyRecord


def study_key(study: StudyRecord) -> str:
    """Key of a study's parent run: that of the fact that says it started."""
    return f"study-{study.uid}-started"


def trial_key(study: StudyRecord, number: int) -> str:
    """Key of a trial's child run: that of the fact that says it ended."""
    return f"study-{study.uid}-trial-{number}"


def champion_key(study: StudyRecord, trial: int) -> str:
    """Key of a study's model of one trial."""
    return f"study-{study.uid}-champion-{trial}"


def started(study: StudyRecord) -> Fact:
    return Fact(key=study_key(study), kind=FactKind.STUDY_STARTED)


def trial_ended(study: StudyRecord, number: int) -> Fact:
    return Fact(key=trial_key(study, number), kind=FactKind.TRIAL_ENDED, trial=number)


def ended(study: StudyRecord, token: int) -> Fact:
    """A study's end, under a key of its own for each claim: a resumed study ends once more."""
    return Fact(key=f"study-{study.uid}-ended-{token}", kind=FactKind.STUDY_ENDED)


def cancelled(study: StudyRecord, at: datetime) -> Fact:
    """A cancel of a study that nobody works on. The same cancel again has the same key."""
    return Fact(key=f"study-{study.uid}-cancelled-{int(1000 * at.timestamp())}", kind=FactKind.STUDY_ENDED)
