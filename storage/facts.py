"""The facts that MLflow is told, and their keys: unique among all databases, so that telling one twice is harmless.

A key is of ``[a-z0-9-]`` only: quotes in a filter of MLflow's can't be escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from storage.records import ExtraRun, Fact, FactKind, StudyRecord, StudyState, TrialRecord, TrialState


def study_key(study: StudyRecord) -> str:
    """Key of a study's parent run: that of the fact that says it started."""
    return parent_key(study.uid)


def parent_key(uid: str) -> str:
    return f"study-{uid}-started"


def trial_key(study: StudyRecord, number: int) -> str:
    """Key of a trial's child run: that of the fact that says it ended."""
    return f"study-{study.uid}-trial-{number}"


def extra_run_key(study: StudyRecord, run: ExtraRun) -> str:
    """Key of an extra run's child run: that of the fact that says it ended."""
    amount = f"{run.amount:g}".replace(".", "-")
    return f"study-{study.uid}-extra-{run.probe}-{run.trial}-{amount}"


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


def extra_run_ended(study: StudyRecord, run: ExtraRun) -> Fact:
    return Fact(key=extra_run_key(study, run), kind=FactKind.EXTRA_RUN_ENDED, trial=run.trial)


def page_written(study: StudyRecord, name: str, at: datetime) -> Fact:
    """A page in the study's folder, under a key of its own each time: it may have changed."""
    return Fact(key=f"study-{study.uid}-page-{name}-{int(1000 * at.timestamp())}", kind=FactKind.PAGE_WRITTEN)


def page_of(key: str) -> str:
    """The name of the page that a fact of this key tells of."""
    return key.split("-page-", 1)[1].rpartition("-")[0]


def all_of(
    study: StudyRecord, trials: Sequence[TrialRecord], extra_runs: Sequence[ExtraRun], *, ended: bool
) -> list[Fact]:
    """Everything that MLflow is to know of a study, but for its pages, of which their facts alone know.

    Args:
        ended: A fact that tells its end is there already, under the key of a claim.
    """
    told = [started(study)] if study.split_hash is not None else []
    told += [trial_ended(study, trial.number) for trial in trials if trial.state is not TrialState.RUNNING]
    told += [extra_run_ended(study, run) for run in extra_runs]
    is_over = study.started_at is not None and study.state not in (StudyState.QUEUED, StudyState.RUNNING)
    if is_over and not ended:
        told.append(Fact(key=f"study-{study.uid}-ended-again", kind=FactKind.STUDY_ENDED))
    return told
