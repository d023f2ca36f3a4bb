"""One study out of a database, and into another: all of its rows, as lines of JSON, a few thousand at a time.

What belongs to whoever works on it or publishes it (lease, tokens, MLflow's ids) stays behind.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy.exc import IntegrityError

from neurosweep import __version__
from neurosweep.errors import BadInputError, NeurosweepError
from neurosweep.failpoints import reach
from storage import facts, insight, queue, results
from storage.database import HEAD
from storage.inserting import insert_absent
from storage.optuna_tables import OptunaStudy, check_param, stored_attrs, stored_trials
from storage.records import ExtraRun, Opening, StudyRecord, StudyState, TrialState
from storage.schema import epoch, extra_run, opening, study, trial
from storage.transfer_lines import (
    EpochLine,
    ExtraRunLine,
    Head,
    OpeningLine,
    OptunaTrialLine,
    StudyLine,
    TrialLine,
    Version,
)

FORMAT = 1

EPOCHS_AT_ONCE, TRIALS_AT_ONCE = 2000, 250
"""Lines that are in memory at a time, and in one statement: PostgreSQL ends one that takes half a minute."""

LEFT_BEHIND = frozenset(
    {
        *("id", "cancel_requested", "dispatcher", "notice", "token", "leased_until"),
        *("publisher", "publisher_token", "published_until"),
    }
)
"""Columns of a study that say nothing of it, only of those at work on it."""

_OVER = frozenset({StudyState.STOPPED, StudyState.FINISHED, StudyState.FAILED, StudyState.CANCELLED})

_OPTUNAS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAILED: "FAIL",
}

L = TypeVar("L", EpochLine, OptunaTrialLine, TrialLine)
T = TypeVar("T")


class Snapshot:
    """One study as it stands at one moment, while `Store.export` has its transaction open. For one thread."""

    def __init__(self, connection: sa.Connection, study_id: int) -> None:
        self._connection = connection
        self._id = study_id

    def study(self) -> StudyRecord:
        return queue.by_id(self._connection, self._id)

    def head(self) -> bytes:
        """The content of ``study.json``."""
        columns = [study.c[name] for name in StudyLine.model_fields]
        row = self._connection.execute(sa.select(*columns).where(study.c.id == self._id)).one()
        head = {
            "format": FORMAT,
            "neurosweep": __version__,
            "schema_version": HEAD,
            "exported_at": datetime.now(UTC),
            "study": dict(row._mapping),
            "optuna": stored_attrs(self._connection, self._id, self.study().label),
            "extra_runs": self._rows(extra_run, ExtraRunLine, extra_run.c.at),
            "openings": self._rows(opening, OpeningLine, opening.c.at),
            "pages": [facts.page_of(key) for key in insight.page_keys(self._connection, self._id)],
        }
        return to_json(head, inf_nan_mode="null", indent=1)

    def _rows(
        self, table: sa.Table, line: type[ExtraRunLine] | type[OpeningLine], order: sa.Column[Any]
    ) -> list[dict[str, Any]]:
        columns = [table.c[name] for name in line.model_fields]
        query = sa.select(*columns).where(table.c.study_id == self._id).order_by(order)
        return [dict(row._mapping) for row in self._connection.execute(query)]

    def trials(self) -> Iterator[bytes]:
        """A line for each trial, by number."""
        return self._lines(trial, TrialLine, trial.c.number)

    def epochs(self) -> Iterator[bytes]:
        """A line for each epoch, by trial and epoch."""
        return self._lines(epoch, EpochLine, epoch.c.trial, epoch.c.epoch)

    def optuna_trials(self) -> Iterator[bytes]:
        """A line for each trial as Optuna keeps it, by number."""
        return map(_line, stored_trials(self._connection, self._id, self.study().label))

    def _lines(
        self, table: sa.Table, line: type[TrialLine] | type[EpochLine], *order: sa.Column[Any]
    ) -> Iterator[bytes]:
        # SQLAlchemy's own names are of a kind of string that makes JSON ten times as slow.
        names = tuple(line.model_fields)
        query = sa.select(*(table.c[name] for name in names)).where(table.c.study_id == self._id)
        rows = self._connection.execute(query.order_by(*order), execution_options={"yield_per": EPOCHS_AT_ONCE})
        return (_line(dict(zip(names, row, strict=True))) for row in rows)


def _line(values: dict[str, Any]) -> bytes:
    return to_json(values, inf_nan_mode="null") + b"\n"


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """An exported study, to be read from the start as often as it takes."""

    head: Head
    trials: Callable[[], Iterable[bytes]]
    epochs: Callable[[], Iterable[bytes]]
    optuna_trials: Callable[[], Iterable[bytes]]


def read_head(content: bytes) -> Head:
    """Checks the content of a ``study.json``.

    Raises:
        BadInputError: It is not one, or of a newer program.
    """
    try:
        head = Head.model_validate_json(content)
    except ValidationError as exc:
        _refuse_newer(content)
        raise BadInputError(f"study.json is damaged or no study of neurosweep's: {_first(exc)}.") from None
    _refuse_newer(content)
    return head


def _refuse_newer(content: bytes) -> None:
    """A newer program's file may well hold what this one takes for damage."""
    try:
        version = Version.model_validate_json(content)
    except ValidationError:
        return
    if version.format > FORMAT or version.schema_version > HEAD:
        raise BadInputError(
            f"It is of a newer neurosweep ({version.neurosweep[:40]}) than this one ({__version__}): upgrade the "
            "program."
        )


def take_in(connection: sa.Connection, parcel: Parcel, place: Callable[[], None], again: bool = False) -> StudyRecord:
    """Writes an exported study's rows, under the next free number of its name.

    Args:
        place: Called when all rows are written and nothing is committed yet.
        again: The answer to an earlier try was lost: a study of this uid is that try's.

    Raises:
        BadInputError: The database has it already, or a line is not what it must be.
    """
    uid = parcel.head.study.uid
    if again and (there := by_uid(connection, uid)) is not None:
        return there
    record = _insert_study(connection, parcel.head)
    if record.started_at is not None:
        results.add_facts(connection, record.id, [facts.started(record)])
    count = _insert_trials(connection, record, parcel)
    _insert_epochs(connection, record, parcel, count)
    _insert_beside(connection, record, parcel.head, count)
    if record.state in _OVER and record.started_at is not None:
        results.add_facts(connection, record.id, [facts.ended(record, token=0)])  # claims count from 1
    place()
    reach("import_before_commit")
    return record


def by_uid(connection: sa.Connection, uid: str) -> StudyRecord | None:
    found = connection.scalar(sa.select(study.c.id).where(study.c.uid == uid))
    return None if found is None else queue.by_id(connection, found)


def refuse_known(there: StudyRecord | None) -> None:
    if there is not None:
        raise BadInputError(
            f"This study is in the database already, as {there.name}@{there.number} ({there.state}): a study is "
            "imported once."
        )


def _insert_study(connection: sa.Connection, head: Head) -> StudyRecord:
    values = head.study.model_dump()
    if values["state"] is StudyState.RUNNING:
        # Nobody works on it here, and at this moment it was known how far it is.
        values |= {"state": StudyState.STOPPED, "ended_at": head.exported_at}
    for _ in range(queue.NUMBER_ATTEMPTS):
        refuse_known(by_uid(connection, head.study.uid))
        newest = connection.scalar(sa.select(sa.func.max(study.c.number)).where(study.c.name == head.study.name))
        values["number"] = (newest or 0) + 1
        try:
            with connection.begin_nested():
                made = connection.scalar(sa.insert(study).values(values).returning(study.c.id))
        except IntegrityError:
            continue  # another process took the number, or imports the same study
        record = queue.by_id(connection, int(made or 0))
        if record.result is not None:
            named = {**record.result, "study": record.label}
            connection.execute(sa.update(study).where(study.c.id == record.id).values(result=named))
        return queue.by_id(connection, record.id)
    raise NeurosweepError(f"Too many studies named {head.study.name!r} are being submitted at once: try again.")


def _insert_trials(connection: sa.Connection, record: StudyRecord, parcel: Parcel) -> int:
    """Ours and Optuna's side by side, since they must say the same; returns how many."""
    ours = _parsed("trials.jsonl", TrialLine, parcel.trials())
    optunas = _parsed("optuna.jsonl", OptunaTrialLine, parcel.optuna_trials())
    optuna: OptunaStudy | None = None
    if parcel.head.optuna is not None:
        optuna = OptunaStudy(connection, record.id, record.label)
        optuna.set_study_attrs(connection, parcel.head.optuna.system, parcel.head.optuna.user)
    count = 0
    for pairs in _batches(zip_longest(ours, optunas), TRIALS_AT_ONCE):
        checked = []
        for line, theirs in pairs:
            if line is None or theirs is None or optuna is None:
                raise BadInputError("Its trials and those of Optuna are not the same.")
            _check_trial(line, theirs, count)
            checked.append((line, theirs))
            count += 1
        rows = [{"study_id": record.id, **line.__dict__} for line, _ in checked]
        insert_absent(connection, trial, rows, ("study_id", "number"))
        if optuna is not None:
            optuna.restore(connection, [theirs for _, theirs in checked])
        told = [line.number for line, _ in checked if line.state is not TrialState.RUNNING]
        results.add_facts(connection, record.id, [facts.trial_ended(record, number) for number in told])
        reach("import_trials")
    return count


def _check_trial(line: TrialLine, theirs: OptunaTrialLine, number: int) -> None:
    where = f"Trial {number}"
    if line.number != number or theirs.number != number:
        raise BadInputError(f"{where} is missing: trials are numbered 0, 1, 2 and so on.")
    if theirs.state != _OPTUNAS[line.state]:
        raise BadInputError(f"{where} is {line.state}, but Optuna's is {theirs.state}.")
    over = line.state is not TrialState.RUNNING
    if any((moment is not None) is not over for moment in (line.ended_at, theirs.ended_at)):
        raise BadInputError(f"{where} is {line.state}, and its end does not fit that.")
    valued = len(theirs.values)
    complete = line.state is TrialState.COMPLETE
    if theirs.started_at is None or valued > over or (complete and (valued == 0 or line.validation is None)):
        raise BadInputError(f"{where} is {line.state}, and its value or its start does not fit that.")
    for names in ([param.name for param in theirs.params], [step for step, _ in theirs.steps]):
        if len(set(names)) < len(names):
            raise BadInputError(f"{where} has a parameter or a step twice.")
    try:
        for param in theirs.params:
            check_param(param)
    except ValueError as exc:
        raise BadInputError(f"{where}: {exc}.") from None


def _insert_epochs(connection: sa.Connection, record: StudyRecord, parcel: Parcel, trials: int) -> None:
    last = (-1, 0)
    for lines in _batches(_parsed("epochs.jsonl", EpochLine, parcel.epochs()), EPOCHS_AT_ONCE):
        for line in lines:
            if not last < (line.trial, line.epoch) or line.trial >= trials:
                raise BadInputError(
                    f"Epoch {line.epoch} of trial {line.trial} is there twice, out of order, or of no trial."
                )
            last = (line.trial, line.epoch)
        rows = [{"study_id": record.id, **line.__dict__} for line in lines]
        insert_absent(connection, epoch, rows, ("study_id", "trial", "epoch"))
        reach("import_epochs")


def _insert_beside(connection: sa.Connection, record: StudyRecord, head: Head, trials: int) -> None:
    """What is remembered beside the search."""
    named = [line.trial for line in head.extra_runs]
    named += [line.trial for line in head.openings if line.trial is not None]
    if named and max(named) >= trials:
        raise BadInputError(f"An extra run or a look at the test split is of trial {max(named)}, which is not there.")
    runs = [
        ExtraRun(
            **{
                **line.__dict__,
                "seed": int(line.seed),
                "curve": tuple(math.nan if value is None else value for value in line.curve),
            }
        )
        for line in head.extra_runs
    ]
    if len({(run.probe, run.trial, run.amount) for run in runs}) < len(runs):
        raise BadInputError("An extra run is there twice.")
    insight.add_extra_runs(connection, record.id, runs, head.exported_at)
    for line in head.openings:
        insight.add_opening(connection, record.id, Opening(at=line.at, trial=line.trial, reason=line.reason))
    for name in head.pages:
        insight.add_page(connection, record.id, name, head.exported_at)


def _parsed(name: str, line: type[L], texts: Iterable[bytes]) -> Iterator[L]:
    for number, text in enumerate(texts, 1):
        try:
            yield line.model_validate_json(text)
        except ValidationError as exc:
            raise BadInputError(f"{name}, line {number}: {_first(exc)}.") from None


def _first(error: ValidationError) -> str:
    """What is wrong, without the value, which may be of any length."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"][:5])
    said = first["msg"].removeprefix("Value error, ")[:200]
    return f"{place}: {said}" if place else said


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch
