"""What `neurosweep doctor` looks for in the database, and puts right."""

from __future__ import annotations

import sqlalchemy as sa

from storage.database import now
from storage.queue import abandoned_at, by_id
from storage.records import ENDED, AbandonedStudy, StudyState, TrialState
from storage.schema import study, trial

FORGOTTEN = "it was still marked as running after its study had ended"


def abandoned(connection: sa.Connection) -> list[AbandonedStudy]:
    """Studies that are marked as running though their dispatcher's lease has run out, the oldest first."""
    clock = now(connection)
    rows = connection.execute(
        sa.select(study.c.id, study.c.dispatcher, (clock - study.c.leased_until).label("seconds"))
        .where(abandoned_at(clock))
        .order_by(study.c.id)
    )
    return [
        AbandonedStudy(study=by_id(connection, row.id), dispatcher=row.dispatcher, seconds=row.seconds)
        for row in rows.all()
    ]


def put_back(connection: sa.Connection, study_id: int) -> bool:
    """Puts an abandoned study back into the queue; False where somebody works on it again."""
    done = connection.execute(
        sa.update(study)
        .where(study.c.id == study_id, abandoned_at(now(connection)))
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


def has_ended(connection: sa.Connection, study_id: int) -> bool:
    """Whether a study has ended for good; until the transaction's end it stays so."""
    held = connection.execute(
        sa.update(study).where(study.c.id == study_id, study.c.state.in_(ENDED)).values(token=study.c.token)
    )
    return bool(held.rowcount)
