"""What `neurosweep doctor` looks for in the database, and puts right."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from storage import results
from storage.database import now
from storage.facts import trial_ended
from storage.queue import by_id
from storage.records import AbandonedStudy, EndedTrial, StudyState, TrialRecord, TrialState
from storage.schema import study, trial

ENDED = (StudyState.FINISHED, StudyState.FAILED, StudyState.CANCELLED)
"""States in which no trial may be running; a stopped study's go on when it is resumed."""

FORGOTTEN = "it was still marked as running after its study had ended"


def abandoned(connection: sa.Connection) -> list[AbandonedStudy]:
    """Studies that are marked as running though their dispatcher's lease has run out, the oldest first."""
    clock = now(connection)
    rows = connection.execute(
        sa.select(study.c.id, study.c.dispatcher, (clock - study.c.leased_until).label("seconds"))
        .where(study.c.state == StudyState.RUNNING, study.c.leased_until < clock)
        .order_by(study.c.id)
    )
    return [
        AbandonedStudy(study=by_id(connection, row.id), dispatcher=row.dispatcher, seconds=row.seconds)
        for row in rows.all()
    ]


def put_back(connection: sa.Connection, study_id: int) -> bool:
    """Puts an abandoned study back into the queue; False where somebody works on it again."""
    waiting = sa.and_(study.c.state == StudyState.RUNNING, study.c.leased_until < now(connection))
    done = connection.execute(
        sa.update(study)
        .where(study.c.id == study_id, waiting)
        .values(state=StudyState.QUEUED, leased_until=None, dispatcher=None)
    )
    return bool(done.rowcount)


def forgotten_trials(connection: sa.Connection) -> dict[int, list[int]]:
    """Trials that are marked as running in studies that have ended, by study."""
    found: dict[int, list[int]] = {}
    for study_id, number in connection.execute(
        sa.select(trial.c.study_id, trial.c.number)
        .join(study, study.c.id == trial.c.study_id)
        .where(study.c.state.in_(ENDED), trial.c.state == TrialState.RUNNING)
        .order_by(trial.c.study_id, trial.c.number)
    ):
        found.setdefault(study_id, []).append(number)
    return found


def fail_forgotten(
    connection: sa.Connection, study_id: int, numbers: Sequence[int], at: datetime
) -> Sequence[EndedTrial]:
    """Marks forgotten trials of an ended study as failed in our tables; returns them for Optuna's."""
    held = connection.execute(
        sa.update(study).where(study.c.id == study_id, study.c.state.in_(ENDED)).values(token=study.c.token)
    )
    if not held.rowcount:
        return []
    running = [each for each in results.trials(connection, study_id, numbers) if each.state is TrialState.RUNNING]
    ended = [_failed(each, at) for each in running]
    results.end(connection, study_id, ended)
    record = by_id(connection, study_id)
    results.add_facts(connection, study_id, [trial_ended(record, each.number) for each in ended])
    return ended


def _failed(running: TrialRecord, at: datetime) -> EndedTrial:
    return EndedTrial(
        number=running.number,
        state=TrialState.FAILED,
        value=None,
        train=None,
        validation=None,
        epochs=running.epochs,
        best_epoch=running.best_epoch,
        seconds=running.seconds,
        weights=running.weights,
        worker=running.worker or "",
        error=FORGOTTEN,
        ended_at=at,
        pack=running.pack,
        memory=running.memory,
    )
