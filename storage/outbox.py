"""The outbox: facts that MLflow has not been told yet. One publisher at a time holds a study's part of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from neurosweep.errors import LeaseLostError
from storage.database import now, to_come
from storage.inserting import insert_or_update
from storage.queue import by_id
from storage.records import OF_PARENT, Behind, Fact, FactKind, MlflowRun, OutboxClaim
from storage.schema import mlflow_run, outbox, study

_earlier = outbox.alias("earlier")


def _of_parent(facts: sa.FromClause) -> sa.ColumnElement[bool]:
    return facts.c.kind.in_(OF_PARENT)


def _due(clock: Any) -> sa.ColumnElement[bool]:
    """Facts to publish now. Those about a study itself, which have one run, wait for the earlier ones of their kind."""
    held_up = sa.exists().where(
        _earlier.c.study_id == outbox.c.study_id,
        _earlier.c.id < outbox.c.id,
        _of_parent(_earlier),
        ~_earlier.c.published,
        ~_earlier.c.set_aside,
        to_come(_earlier.c.not_before, clock),
    )
    waits = sa.and_(_of_parent(outbox), held_up)
    return sa.and_(~outbox.c.published, ~outbox.c.set_aside, sa.not_(to_come(outbox.c.not_before, clock)), ~waits)


def claim(connection: sa.Connection, publisher: str, lease_seconds: float) -> OutboxClaim | None:
    """Takes the study with the oldest fact that is due and that no other publisher holds."""
    clock = now(connection)
    due = (
        sa.select(outbox.c.study_id)
        .join(study, study.c.id == outbox.c.study_id)
        .where(
            _due(clock),
            sa.or_(study.c.published_until.is_(None), sa.not_(to_come(study.c.published_until, clock))),
        )
        .order_by(outbox.c.id)
        .limit(1)
        .with_for_update(of=study, skip_locked=True)
    )
    row = connection.execute(
        sa.update(study)
        .where(study.c.id == due.scalar_subquery())
        .values(
            publisher=publisher,
            publisher_token=study.c.publisher_token + 1,
            published_until=clock + lease_seconds,
        )
        .returning(study.c.id, study.c.publisher_token)
    ).one_or_none()
    if row is None:
        return None
    return OutboxClaim(study=by_id(connection, row.id), token=row.publisher_token)


def _fence(connection: sa.Connection, held: OutboxClaim, published_until: object) -> None:
    hit = connection.execute(
        sa.update(study)
        .where(study.c.id == held.study.id, study.c.publisher_token == held.token)
        .values(published_until=published_until)
    )
    if hit.rowcount == 0:
        raise LeaseLostError(f"Another publisher tells MLflow about {held.study.label} now.")


def renew(connection: sa.Connection, held: OutboxClaim, lease_seconds: float) -> None:
    _fence(connection, held, now(connection) + lease_seconds)


def release(connection: sa.Connection, held: OutboxClaim) -> None:
    _fence(connection, held, None)


def facts(connection: sa.Connection, held: OutboxClaim, limit: int) -> list[Fact]:
    """Facts of the study that are due, in the order in which they happened."""
    rows = connection.execute(
        sa.select(outbox.c.key, outbox.c.kind, outbox.c.trial, outbox.c.attempts)
        .where(outbox.c.study_id == held.study.id, _due(now(connection)))
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [Fact(key=row.key, kind=FactKind(row.kind), trial=row.trial, attempts=row.attempts) for row in rows]


def published(connection: sa.Connection, held: OutboxClaim, keys: Sequence[str]) -> None:
    _fence(connection, held, study.c.published_until)
    mine = sa.and_(outbox.c.study_id == held.study.id, outbox.c.key.in_(keys))
    connection.execute(sa.update(outbox).where(mine).values(published=True, reason=None))


def postponed(connection: sa.Connection, held: OutboxClaim, key: str, reason: str, delay: float) -> None:
    """Puts one fact off by `delay` seconds, for a reason that is not its own."""
    _set(connection, held, key, reason=reason, not_before=now(connection) + delay)


def refused(
    connection: sa.Connection, held: OutboxClaim, fact: Fact, reason: str, delay: float, set_aside: bool
) -> None:
    """Puts off by `delay` seconds, or sets aside, a fact that could not be told while others can."""
    values = {"attempts": fact.attempts + 1, "set_aside": set_aside}
    _set(connection, held, fact.key, reason=reason, not_before=now(connection) + delay, **values)


def _set(connection: sa.Connection, held: OutboxClaim, key: str, **values: Any) -> None:
    _fence(connection, held, study.c.published_until)
    mine = sa.and_(outbox.c.study_id == held.study.id, outbox.c.key == key)
    connection.execute(sa.update(outbox).where(mine).values(values))


def pending(connection: sa.Connection, study_id: int | None) -> int:
    """How many facts MLflow has not been told."""
    return connection.scalar(sa.select(sa.func.count()).where(~outbox.c.published, _of(study_id))) or 0


def _of(study_id: int | None) -> sa.ColumnElement[bool]:
    return sa.true() if study_id is None else outbox.c.study_id == study_id


def behind(connection: sa.Connection, study_id: int | None) -> Behind:
    """How far MLflow is behind with a study, or with all."""
    waiting = sa.and_(~outbox.c.published, _of(study_id))
    aside = sa.func.count().filter(outbox.c.set_aside)
    next_try = sa.func.min(outbox.c.not_before).filter(~outbox.c.set_aside)
    count, set_aside, soonest, clock = connection.execute(
        sa.select(sa.func.count(outbox.c.id), aside, next_try, now(connection)).where(waiting)
    ).one()

    def oldest(which: sa.ColumnElement[bool]) -> str | None:
        reasons = sa.select(outbox.c.reason).where(waiting, which, outbox.c.reason.is_not(None))
        return connection.scalar(reasons.order_by(outbox.c.id).limit(1)) if count else None

    return Behind(
        pending=count - set_aside,
        set_aside=set_aside,
        oldest_reason=oldest(~outbox.c.set_aside),
        set_aside_reason=oldest(outbox.c.set_aside),
        next_try=datetime.fromtimestamp(soonest, UTC) if soonest is not None and soonest > clock else None,
    )


def tell_again(connection: sa.Connection, study_id: int) -> int:
    """Makes a study's facts due, whether they were published, put off or set aside; returns how many there are."""
    values = {"published": False, "set_aside": False, "attempts": 0, "not_before": 0.0, "reason": None}
    return int(connection.execute(sa.update(outbox).where(outbox.c.study_id == study_id).values(values)).rowcount)


def tells_end(connection: sa.Connection, study_id: int) -> bool:
    """Whether a fact says that the study has ended."""
    ends = sa.and_(outbox.c.study_id == study_id, outbox.c.kind == FactKind.STUDY_ENDED)
    return connection.scalar(sa.select(outbox.c.id).where(ends).limit(1)) is not None


def take_back(connection: sa.Connection, study_id: int) -> int:
    """Lets facts that were set aside be tried again; returns how many."""
    mine = sa.and_(outbox.c.study_id == study_id, outbox.c.set_aside)
    found = connection.execute(sa.update(outbox).where(mine).values(set_aside=False, attempts=0, not_before=0.0))
    return int(found.rowcount)


def set_run(connection: sa.Connection, held: OutboxClaim, run: MlflowRun) -> None:
    _fence(connection, held, study.c.published_until)
    row = {"study_id": held.study.id, "experiment_id": run.experiment_id, "run_id": run.run_id}
    insert_or_update(connection, mlflow_run, [row], ("study_id",), ("experiment_id", "run_id"))


def run_of(connection: sa.Connection, study_id: int) -> MlflowRun | None:
    row = connection.execute(
        sa.select(mlflow_run.c.experiment_id, mlflow_run.c.run_id).where(mlflow_run.c.study_id == study_id)
    ).one_or_none()
    return None if row is None else MlflowRun(experiment_id=row.experiment_id, run_id=row.run_id)
