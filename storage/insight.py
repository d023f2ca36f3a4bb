"""What is remembered of a study beside its search: extra runs, looks at the test split, pages, its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from storage import facts, queue, results
from storage.inserting import insert_absent
from storage.records import ExtraRun, FactKind, Opening, Probe
from storage.results import finite
from storage.schema import extra_run, opening, outbox, study


def add_extra_runs(connection: sa.Connection, study_id: int, runs: Sequence[ExtraRun], at: datetime) -> None:
    """Adds runs, and the facts that say so. One that is there already, by its probe, trial and amount, stays as it is.

    Args:
        at: When those ended that do not say so themselves.
    """
    rows = [
        {
            "study_id": study_id,
            "probe": run.probe,
            "trial": run.trial,
            "amount": float(run.amount),
            "settings": run.settings,
            "seed": str(run.seed),
            "train": finite(run.train),
            "validation": finite(run.validation),
            "rows": run.rows,
            "epochs": run.epochs,
            "seconds": run.seconds,
            "weights": run.weights,
            "curve": [finite(value) for value in run.curve],
            "error": run.error,
            "at": run.at or at,
        }
        for run in runs
    ]
    insert_absent(connection, extra_run, rows, ("study_id", "probe", "trial", "amount"))
    record = queue.by_id(connection, study_id)
    results.add_facts(connection, study_id, [facts.extra_run_ended(record, run) for run in runs])


def extra_runs(connection: sa.Connection, study_id: int) -> list[ExtraRun]:
    """A study's extra runs in the order in which they ended."""
    order = (extra_run.c.at, extra_run.c.probe, extra_run.c.trial, extra_run.c.amount)
    found = []
    for row in connection.execute(sa.select(extra_run).where(extra_run.c.study_id == study_id).order_by(*order)):
        values = dict(row._mapping)
        del values["study_id"]
        curve = tuple(math.nan if value is None else value for value in values["curve"])
        found.append(
            ExtraRun(**{**values, "probe": Probe(values["probe"]), "seed": int(values["seed"]), "curve": curve})
        )
    return found


def add_opening(connection: sa.Connection, study_id: int, look: Opening) -> None:
    if any((known.trial, known.reason) == (look.trial, look.reason) for known in openings(connection, study_id)):
        return
    row = {"study_id": study_id, "at": look.at, "trial": look.trial, "reason": look.reason}
    insert_absent(connection, opening, [row], ("study_id", "at"))


def openings(connection: sa.Connection, study_id: int) -> list[Opening]:
    """Every look at the study's test split, the first one first."""
    query = sa.select(opening).where(opening.c.study_id == study_id).order_by(opening.c.at)
    return [Opening(at=row.at, trial=row.trial, reason=row.reason) for row in connection.execute(query)]


def add_page(connection: sa.Connection, study_id: int, name: str, at: datetime) -> None:
    """Adds the fact that a page was written; it takes the place of an earlier one's."""
    fact = facts.page_written(queue.by_id(connection, study_id), name, at)
    earlier = [key for key in page_keys(connection, study_id) if facts.page_of(key) == name and key != fact.key]
    connection.execute(sa.delete(outbox).where(outbox.c.study_id == study_id, outbox.c.key.in_(earlier)))
    results.add_facts(connection, study_id, [fact])


def page_keys(connection: sa.Connection, study_id: int) -> list[str]:
    """Keys of the facts that say that a page was written."""
    mine = sa.and_(outbox.c.study_id == study_id, outbox.c.kind == FactKind.PAGE_WRITTEN)
    return list(connection.scalars(sa.select(outbox.c.key).where(mine).order_by(outbox.c.id)))


def set_verdict(connection: sa.Connection, study_id: int, verdict: str) -> None:
    record = queue.by_id(connection, study_id)
    if record.result is not None:
        result = {**record.result, "verdict": verdict}
        connection.execute(sa.update(study).where(study.c.id == study_id).values(result=result))
