"""The outbox: facts that MLflow has not been told yet. One publisher at a time holds a study's part of it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from neurosweep.errors import LeaseLostError
from storage.database import now
from storage.inserting import insert_or_update
from storage.queue import by_id
from storage.records import Fact, FactKind, MlflowRun, OutboxClaim
from storage.schema import mlflow_run, outbox, study


def claim(connection: sa.Connection, publisher: str, lease_seconds: float) -> OutboxClaim | None:
    """Takes the study with the oldest fact that is due and that no other publisher holds."""
    clock = now(connection)
    due = (
        sa.select(outbox.c.study_id)
        .join(study, study.c.id == outbox.c.study_id)
        .where(
            ~outbox.c.published,
            ~outbox.c.set_aside,
            outbox.c.not_before <= clock,
            sa.or_(study.c.published_until.is_(None), study.c.published_until < clock),
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
        sa.select(outbox.c.key, outbox.c.kind, outbox.c.trial)
        .where(outbox.c.study_id == held.study.id, ~outbox.c.published, outbox.c.not_before <= now(connection))
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [Fact(key=row.key, kind=FactKind(row.kind), trial=row.trial) for row in rows]


def published(connection: sa.Connection, held: OutboxClaim, keys: Sequence[str]) -> None:
    _fence(connection, held, study.c.published_until)
    mine = sa.and_(outbox.c.study_id == held.study.id, outbox.c.key.in_(keys))
    connection.execute(sa.update(outbox).where(mine).values(published=True, reason=None))


def postponed(connection: sa.Connection, held: OutboxClaim, key: str, reason: str, delay: float) -> None:
    """Puts one fact off by `delay` seconds; the study's others don't wait for it."""
    _fence(connection, held, study.c.published_until)
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.study_id == held.study.id, outbox.c.key == key)
        .values(attempts=outbox.c.attempts + 1, reason=reason, not_before=now(connection) + delay)
    )


def pending(connection: sa.Connection, study_id: int | None) -> int:
    """How many facts MLflow has not been told."""
    only = sa.true() if study_id is None else outbox.c.study_id == study_id
    return connection.scalar(sa.select(sa.func.count()).where(~outbox.c.published, only)) or 0


def set_run(connection: sa.Connection, held: OutboxClaim, run: MlflowRun) -> None:
    _fence(connection, held, study.c.published_until)
    row = {"study_id": held.study.id, "experiment_id": run.experiment_id, "run_id": run.run_id}
    insert_or_update(connection, mlflow_run, [row], ("study_id",), ("experiment_id", "run_id"))


def run_of(connection: sa.Connection, study_id: int) -> MlflowRun | None:
    row = connection.execute(
        sa.select(mlflow_run.c.experiment_id, mlflow_run.c.run_id).where(mlflow_run.c.study_id == study_id)
    ).one_or_none()
    return None if row is None else MlflowRun(experiment_id=row.experiment_id, run_id=row.run_id)
