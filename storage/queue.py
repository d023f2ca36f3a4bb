"""The queue of studies: submitted, claimed with a lease and a fencing token, cancelled, put back."""

from __future__ import annotations

import difflib
import math
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from neurosweep.errors import BadInputError, LeaseLostError, NeurosweepError, NoSuchStudyError
from storage.database import now, to_come
from storage.records import ENDED, Claim, NewStudy, StudyRecord, StudyState, StudySummary, TrialState
from storage.schema import study, trial

_COLUMNS = [
    study.c[name]
    for name in (
        "id",
        "name",
        "number",
        "spec",
        "text",
        "trials",
        "state",
        "created_at",
        "started_at",
        "ended_at",
        "error",
        "result",
        "split_hash",
        "cancel_requested",
        "uid",
        "worked",
        "notice",
        "tree",
        "round",
        "rounds",
        "sealed",
    )
]

_RESUMABLE = (StudyState.STOPPED, *ENDED)

LONGEST_SHOWN = 100
"""Characters of a name that nobody's study has."""

NUMBER_ATTEMPTS = 20
"""Studies of one name that are submitted at the same moment race for a number; each loser tries the next one."""


def to_record(row: sa.Row[Any]) -> StudyRecord:
    values = row._mapping
    return StudyRecord(**{**values, "state": StudyState(values["state"])})


def by_id(connection: sa.Connection, study_id: int) -> StudyRecord:
    row = connection.execute(sa.select(*_COLUMNS).where(study.c.id == study_id)).one_or_none()
    if row is None:
        raise NoSuchStudyError(f"There is no study with the id {study_id}.")
    return to_record(row)


def submit(connection: sa.Connection, new: NewStudy, at: datetime, again: bool = False) -> StudyRecord:
    """Puts a study into the queue under the next free number of its name.

    Args:
        at: The moment of submission.
        again: The answer to an earlier try was lost: a study of this name and moment is that try's.
    """
    if again:
        mine = sa.select(*_COLUMNS).where(study.c.name == new.name, study.c.created_at == at)
        if (row := connection.execute(mine).first()) is not None:
            return to_record(row)
    for _ in range(NUMBER_ATTEMPTS):
        newest = connection.scalar(sa.select(sa.func.max(study.c.number)).where(study.c.name == new.name))
        uid = uuid.uuid4().hex[:12]
        values = {
            "name": new.name,
            "number": (newest or 0) + 1,
            "uid": uid,
            "spec": new.spec,
            "text": new.text,
            "trials": new.trials,
            "state": StudyState.QUEUED,
            "created_at": at,
            "tree": uid if new.round == 1 else new.tree,
            "round": new.round,
            "rounds": new.rounds,
            "sealed": new.sealed,
        }
        try:
            with connection.begin_nested():
                row = connection.execute(sa.insert(study).values(values).returning(*_COLUMNS)).one()
        except IntegrityError:
            continue
        return to_record(row)
    raise NeurosweepError(f"Too many studies named {new.name!r} are being submitted at once: try again.")


def find(connection: sa.Connection, label: str) -> StudyRecord:
    """The newest study of a name, or the N-th of ``name@N``.

    Raises:
        NoSuchStudyError: There is none; the message names near ones.
    """
    # What a database can't be asked for, such as a byte of the command line that is no text, is in no name.
    label = label.replace("\0", "?").encode(errors="replace").decode()
    name, at, number = label.partition("@")
    query = sa.select(*_COLUMNS).where(study.c.name == name).order_by(study.c.number.desc()).limit(1)
    if at:
        # No study's number is that long; a longer one would not fit the column.
        wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
        query = query.where(study.c.number == wanted)
    row = connection.execute(query).one_or_none()
    if row is not None:
        return to_record(row)
    names = connection.scalars(sa.select(study.c.name).distinct()).all()
    label = label if len(label) <= LONGEST_SHOWN else f"{label[:LONGEST_SHOWN]}..."
    raise NoSuchStudyError(f"There is no study {label!r}{_hint(name, label, names)}.")


def _hint(name: str, label: str, names: Sequence[str]) -> str:
    if name in names:
        return f"; `neurosweep list` shows which numbers {name!r} has"
    near = difflib.get_close_matches(label, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return "; `neurosweep list` shows the studies that are there" if names else ": none has been submitted yet"


def held_at(clock: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Studies that a dispatcher works on."""
    return sa.and_(study.c.state == StudyState.RUNNING, to_come(study.c.leased_until, clock))


def abandoned_at(clock: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Studies whose dispatcher has not renewed its lease."""
    return sa.and_(study.c.state == StudyState.RUNNING, sa.not_(to_come(study.c.leased_until, clock)))


def claim(
    connection: sa.Connection, dispatcher: str, lease_seconds: float, study_id: int | None, again: bool = False
) -> Claim | None:
    """Takes the oldest study that waits, or whose dispatcher has not renewed its lease, in one statement.

    Args:
        again: The answer to an earlier try was lost: a study that this dispatcher holds is that try's.
    """
    clock = now(connection)
    if again:
        mine = sa.select(*_COLUMNS, study.c.token).where(held_at(clock), study.c.dispatcher == dispatcher)
        if study_id is not None:
            mine = mine.where(study.c.id == study_id)
        if (row := connection.execute(mine).first()) is not None:
            return _to_claim(row._mapping)
    waiting = sa.or_(study.c.state == StudyState.QUEUED, abandoned_at(clock))
    chosen = sa.select(study.c.id).where(waiting).order_by(study.c.id).limit(1)
    if study_id is not None:
        chosen = chosen.where(study.c.id == study_id)
    # SQLite has no such lock and needs none: its transaction holds the only write lock there is.
    chosen = chosen.with_for_update(skip_locked=True)
    row = connection.execute(
        sa.update(study)
        .where(study.c.id == chosen.scalar_subquery())
        .values(
            state=StudyState.RUNNING,
            dispatcher=dispatcher,
            token=study.c.token + 1,
            leased_until=clock + lease_seconds,
            started_at=sa.func.coalesce(study.c.started_at, datetime.now(UTC)),
            ended_at=None,
            error=None,
        )
        .returning(*_COLUMNS, study.c.token)
    ).one_or_none()
    return None if row is None else _to_claim(row._mapping)


def _to_claim(found: sa.RowMapping) -> Claim:
    values = dict(found)
    token = values.pop("token")
    return Claim(study=StudyRecord(**{**values, "state": StudyState(values["state"])}), token=token)


def fence(connection: sa.Connection, held: Claim, **values: Any) -> bool:
    """The first statement of every transaction of a dispatcher: locks its study's row and checks its token.

    Returns:
        Whether a cancel was requested.

    Raises:
        LeaseLostError: Another dispatcher has taken the study over, or it is no longer running.
    """
    row = connection.execute(
        sa.update(study)
        .where(study.c.id == held.study.id, study.c.token == held.token, study.c.state == StudyState.RUNNING)
        .values(values or {"token": study.c.token})
        .returning(study.c.cancel_requested)
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"Another dispatcher works on {held.study.label} now.")
    return bool(row.cancel_requested)


def renew(
    connection: sa.Connection, held: Claim, lease_seconds: float, worked: float | None, notice: str | None
) -> bool:
    values: dict[str, Any] = {"leased_until": now(connection) + lease_seconds, "notice": notice}
    if worked is not None:
        values["worked"] = worked
    return fence(connection, held, **values)


def finish(
    connection: sa.Connection,
    held: Claim,
    state: StudyState,
    error: str | None,
    result: dict[str, Any] | None,
    worked: float | None,
) -> None:
    """Ends the study. Again, after the answer to the first time was lost, it changes nothing."""
    values: dict[str, Any] = {
        "state": state,
        "error": error,
        "ended_at": datetime.now(UTC),
        "leased_until": None,
        "notice": None,
    }
    if result is not None:
        values["result"] = result
    if worked is not None:
        values["worked"] = worked
    try:
        fence(connection, held, **values)
    except LeaseLostError:
        # Only the holder of a token ends its study, so this row is of our own first time.
        mine = sa.and_(study.c.id == held.study.id, study.c.token == held.token, study.c.state == state)
        if connection.scalar(sa.select(study.c.id).where(mine)) is None:
            raise


def request_cancel(connection: sa.Connection, study_id: int) -> StudyRecord:
    """Ends a study: at once where it waits or its dispatcher is gone; else that one hears of it with its heartbeat."""
    held = held_at(now(connection))
    ends = sa.and_(study.c.state.in_([StudyState.QUEUED, StudyState.STOPPED, StudyState.RUNNING]), sa.not_(held))
    connection.execute(sa.update(study).where(study.c.id == study_id, held).values(cancel_requested=True))
    connection.execute(
        sa.update(study)
        .where(study.c.id == study_id, ends)
        .values(state=StudyState.CANCELLED, ended_at=datetime.now(UTC))
    )
    return by_id(connection, study_id)


def requeue(connection: sa.Connection, study_id: int, trials: int | None) -> StudyRecord:
    """Puts an ended study back, with the trials that are there and, where asked for, a larger number of them.

    A study that somebody works on is left as it is.

    Raises:
        BadInputError: Fewer trials are asked for than there are.
    """
    record = by_id(connection, study_id)
    have = connection.scalar(sa.select(sa.func.count()).where(trial.c.study_id == study_id)) or 0
    wanted = record.trials if trials is None else trials
    if wanted < max(have, 1):
        raise BadInputError(f"{record.label} has {have} trials already: ask for at least {max(have, 1)}.", "--trials")
    held = held_at(now(connection))
    connection.execute(
        sa.update(study)
        .where(study.c.id == study_id, sa.not_(held))
        .values(
            trials=wanted,
            state=sa.case((study.c.state.in_(_RESUMABLE), StudyState.QUEUED), else_=study.c.state),
            # One that had come to its end is given its time anew, with its trials; a stopped one goes on.
            worked=sa.case((study.c.state.in_(ENDED), 0.0), else_=study.c.worked),
            cancel_requested=False,
        )
    )
    return by_id(connection, study_id)


def of_tree(connection: sa.Connection, tree: str) -> list[StudyRecord]:
    """The rounds of a tree, in order."""
    query = sa.select(*_COLUMNS).where(study.c.tree == tree).order_by(study.c.round)
    return [to_record(row) for row in connection.execute(query)]


def unseal(connection: sa.Connection, study_id: int) -> StudyRecord:
    """Puts a finished round back into the queue, to open its test split at its end; no further trial is to begin."""
    worked = by_id(connection, study_id).worked
    have = connection.scalar(sa.select(sa.func.count()).where(trial.c.study_id == study_id)) or 0
    requeue(connection, study_id, max(have, 1))
    connection.execute(sa.update(study).where(study.c.id == study_id).values(sealed=False, worked=worked))
    return by_id(connection, study_id)


def summaries(connection: sa.Connection, study_id: int | None = None) -> list[StudySummary]:
    """Studies, newest first, with their trials counted by state and their best metric."""
    only = sa.true() if study_id is None else study.c.id == study_id
    best = sa.func.min(trial.c.validation).filter(trial.c.state == TrialState.COMPLETE)
    counted: dict[int, tuple[dict[TrialState, int], float]] = {}
    matching = sa.true() if study_id is None else trial.c.study_id == study_id
    for row in connection.execute(
        sa.select(trial.c.study_id, trial.c.state, sa.func.count().label("n"), best.label("best"))
        .where(matching)
        .group_by(trial.c.study_id, trial.c.state)
    ):
        counts, least = counted.get(row.study_id, ({}, math.inf))
        counts[TrialState(row.state)] = row.n
        counted[row.study_id] = (counts, min(least, math.inf if row.best is None else row.best))
    found: list[StudySummary] = []
    for record in map(to_record, connection.execute(sa.select(*_COLUMNS).where(only).order_by(study.c.id.desc()))):
        counts, least = counted.get(record.id, ({}, math.inf))
        found.append(StudySummary(study=record, counts=counts, best=None if math.isinf(least) else least))
    return found


def summary(connection: sa.Connection, study_id: int) -> StudySummary:
    found = summaries(connection, study_id)
    if not found:
        raise NoSuchStudyError(f"There is no study with the id {study_id}.")
    return found[0]
