"""What a dispatcher writes and reads of a study's trials: each turn in one transaction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage.facts import trial_ended
from storage.inserting import insert_absent
from storage.records import Batch, EndedTrial, EpochRow, Fact, ProposedTrial, StudyRecord, TrialRecord, TrialState
from storage.schema import epoch, outbox, trial


def write(connection: sa.Connection, study_id: int, batch: Batch) -> None:
    """Our own tables' part of a batch; doing it again changes nothing."""
    _propose(connection, study_id, batch.proposed, batch.assigned)
    _report(connection, study_id, batch.epochs, {ended.number for ended in batch.ended})
    new = {proposed.number for proposed in batch.proposed}
    _assign(connection, study_id, {number: by for number, by in batch.assigned.items() if number not in new})
    _die(connection, study_id, batch.deaths)
    _audit(connection, study_id, batch.would_stop)
    _end(connection, study_id, batch.ended)
    add_facts(connection, study_id, batch.facts)


def add_facts(connection: sa.Connection, study_id: int, facts: Sequence[Fact]) -> None:
    rows = [{"study_id": study_id, "key": fact.key, "kind": fact.kind, "trial": fact.trial} for fact in facts]
    insert_absent(connection, outbox, rows, ("key",))


def _propose(
    connection: sa.Connection, study_id: int, trials: Sequence[ProposedTrial], assigned: dict[int, str]
) -> None:
    rows = [
        {
            "study_id": study_id,
            "number": new.number,
            "state": TrialState.RUNNING,
            "params": new.params,
            "settings": new.settings,
            "seed": str(new.seed),
            "worker": assigned.get(new.number),
            "started_at": new.started_at,
        }
        for new in trials
    ]
    insert_absent(connection, trial, rows, ("study_id", "number"))


def _report(connection: sa.Connection, study_id: int, epochs: Sequence[EpochRow], ended: set[int]) -> None:
    """Adds epochs; how many of them a trial in `ended` has is written with its end."""
    rows = [
        {
            "study_id": study_id,
            "trial": row.trial,
            "epoch": row.epoch,
            "train_loss": finite(row.train_loss),
            "train_metric": finite(row.train_metric),
            "validation_loss": finite(row.validation_loss),
            "validation_metric": finite(row.validation_metric),
            "seconds": row.seconds,
            "at": row.at,
        }
        for row in epochs
    ]
    insert_absent(connection, epoch, rows, ("study_id", "trial", "epoch"))
    furthest: dict[int, int] = {}
    for row in epochs:
        furthest[row.trial] = max(row.epoch, furthest.get(row.trial, 0))
    _update(
        connection,
        study_id,
        sa.update(trial).values(epochs=sa.bindparam("furthest")),
        [{"n": number, "furthest": last} for number, last in furthest.items() if number not in ended],
    )


def _assign(connection: sa.Connection, study_id: int, assigned: dict[int, str]) -> None:
    rows = [{"n": number, "by": worker} for number, worker in assigned.items()]
    _update(connection, study_id, sa.update(trial).values(worker=sa.bindparam("by")), rows)


def _die(connection: sa.Connection, study_id: int, deaths: dict[int, int]) -> None:
    rows = [{"n": number, "count": count} for number, count in deaths.items()]
    _update(connection, study_id, sa.update(trial).values(deaths=sa.bindparam("count")), rows)


def _audit(connection: sa.Connection, study_id: int, would_stop: dict[int, int]) -> None:
    rows = [{"n": number, "stop": epoch_} for number, epoch_ in would_stop.items()]
    _update(connection, study_id, sa.update(trial).values(would_stop=sa.bindparam("stop")), rows)


def _end(connection: sa.Connection, study_id: int, trials: Sequence[EndedTrial]) -> None:
    names = (
        "state",
        "train",
        "validation",
        "epochs",
        "best_epoch",
        "seconds",
        "weights",
        "worker",
        "error",
        "ended_at",
        "pack",
        "memory",
        "would_stop",
    )
    rows = [
        {
            "n": ended.number,
            "new_state": ended.state,
            "new_train": finite(ended.train),
            "new_validation": finite(ended.validation),
            "new_epochs": ended.epochs,
            "new_best_epoch": ended.best_epoch,
            "new_seconds": ended.seconds,
            "new_weights": ended.weights,
            "new_worker": ended.worker,
            "new_error": ended.error,
            "new_ended_at": ended.ended_at,
            "new_pack": ended.pack,
            "new_memory": ended.memory,
            "new_would_stop": ended.would_stop,
        }
        for ended in trials
    ]
    values = {name: sa.bindparam(f"new_{name}", type_=trial.c[name].type) for name in names}
    _update(connection, study_id, sa.update(trial).values(values), rows)


def failing_of_running(connection: sa.Connection, study: StudyRecord, reason: str, at: datetime) -> Batch:
    """What ends a study's unfinished trials as failures; to be written."""
    running = sa.and_(trial.c.study_id == study.id, trial.c.state == TrialState.RUNNING)
    times = (
        sa.select(epoch.c.trial, sa.func.sum(epoch.c.seconds).label("seconds"))
        .join(trial, sa.and_(trial.c.study_id == epoch.c.study_id, trial.c.number == epoch.c.trial))
        .where(running)
        .group_by(epoch.c.trial)
    )
    seconds = {row.trial: row.seconds for row in connection.execute(times)}
    ended = [
        EndedTrial(
            number=row.number,
            state=TrialState.FAILED,
            value=None,
            train=None,
            validation=None,
            epochs=row.epochs,
            best_epoch=0,
            seconds=float(seconds.get(row.number, 0.0)),
            weights=0,
            worker=row.worker or "",
            error=reason,
            ended_at=at,
            would_stop=row.would_stop,
        )
        for row in connection.execute(sa.select(trial).where(running).order_by(trial.c.number))
    ]
    facts = [trial_ended(study, each.number) for each in ended]
    return Batch(ended=tuple(ended), facts=tuple(facts))


def _update(connection: sa.Connection, study_id: int, statement: sa.Update, rows: list[dict[str, Any]]) -> None:
    """Runs an update for each row's trial number `n`."""
    if rows:
        here = sa.and_(trial.c.study_id == study_id, trial.c.number == sa.bindparam("n"))
        connection.execute(statement.where(here), rows)


def finite(value: float | None) -> float | None:
    """The figure as a column holds it."""
    return value if value is not None and math.isfinite(value) else None


def trials(connection: sa.Connection, study_id: int, numbers: Sequence[int] | None) -> list[TrialRecord]:
    """A study's trials, or some of them, by number."""
    query = sa.select(trial).where(trial.c.study_id == study_id).order_by(trial.c.number)
    if numbers is not None:
        query = query.where(trial.c.number.in_(numbers))
    records = []
    for row in connection.execute(query):
        values = dict(row._mapping)
        del values["study_id"]
        records.append(TrialRecord(**{**values, "state": TrialState(values["state"]), "seed": int(values["seed"])}))
    return records


def epochs(connection: sa.Connection, study_id: int, numbers: Sequence[int] | None) -> list[EpochRow]:
    """Epochs of a study, or of some of its trials, by trial and epoch; what was not finite is NaN."""
    query = sa.select(epoch).where(epoch.c.study_id == study_id).order_by(epoch.c.trial, epoch.c.epoch)
    if numbers is not None:
        query = query.where(epoch.c.trial.in_(numbers))
    figures = ("train_loss", "train_metric", "validation_loss", "validation_metric")
    records = []
    for row in connection.execute(query):
        values = dict(row._mapping)
        del values["study_id"]
        known = {name: math.nan if values[name] is None else values[name] for name in figures}
        records.append(EpochRow(**{**values, **known}))
    return records
