"""Optuna's own tables, written in bulk inside our transaction. The only module of storage that imports Optuna.

Optuna's storage API commits each call by itself, which costs 100 ms and more for a trial; the same rows in one
transaction cost less than one. This leans on the table models of the pinned Optuna version, and a contract test holds
it to what Optuna's own reader and writer make of the same trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.util import CommandError
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from neurosweep.errors import BadInputError, NeurosweepError
from storage.inserting import insert_absent, insert_or_update
from storage.records import EndedTrial, EpochRow, ProposedTrial, TrialState
from storage.transfer_lines import read, written

if TYPE_CHECKING:
    from storage.transfer_lines import OptunaTrialLine, ParamLine

__all__ = [
    "FrozenTrial",
    "OptunaStudy",
    "check_param",
    "create_tables",
    "load_trials",
    "stored_attrs",
    "stored_trials",
]

_STUDIES: sa.Table = models.StudyModel.__table__
_STUDY_ATTRS: sa.Table = models.StudySystemAttributeModel.__table__
_STUDY_USER_ATTRS: sa.Table = models.StudyUserAttributeModel.__table__
_DIRECTIONS: sa.Table = models.StudyDirectionModel.__table__
_TRIALS: sa.Table = models.TrialModel.__table__
_PARAMS: sa.Table = models.TrialParamModel.__table__
_ATTRS: sa.Table = models.TrialSystemAttributeModel.__table__
_USER_ATTRS: sa.Table = models.TrialUserAttributeModel.__table__
_VALUES: sa.Table = models.TrialValueModel.__table__
_STEPS: sa.Table = models.TrialIntermediateValueModel.__table__

_STATES = {
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}

_END_TRIAL = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.trial_id == sa.bindparam("id"))
    .values(
        state=sa.bindparam("new_state", type_=_TRIALS.c.state.type),
        datetime_complete=sa.bindparam("ended", type_=_TRIALS.c.datetime_complete.type),
    )
)

_OURS = "neurosweep:study"
"""System attribute that holds our study's id, on the Optuna studies that are ours."""


# Optuna's first start on an empty database is not safe against another one at the same moment (optuna#1092), but what
# it does is harmless when done again.
@retry(
    retry=retry_if_exception_type(DatabaseError), stop=stop_after_attempt(8), wait=wait_random(0.05, 0.5), reraise=True
)
def create_tables(url: str) -> None:
    """Lets Optuna make its tables, where they are missing.

    Raises:
        NeurosweepError: The tables are another Optuna's, or MLflow's are in the same database.
    """
    with _optunas_errors():
        _storage(url)


def load_trials(connection: sa.Connection, study_id: int, label: str) -> list[FrozenTrial]:
    """The study's trials as Optuna reads them, by number; none where there is no such study.

    Optuna's own reader makes objects of every row: of 10,000 trials it needs 13 s, which these queries do in one.

    Raises:
        BadInputError: Optuna's study of this name is not ours.
    """
    found = _find(connection, study_id, label)
    if found is None:
        return []

    def rows(table: sa.Table, order: str, *columns: str) -> Iterable[Any]:
        wanted = sa.select(*(table.c[name] for name in columns)).where(_TRIALS.c.study_id == found)
        whole = wanted if table is _TRIALS else wanted.join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
        return connection.execute(whole.order_by(table.c[order]))

    kept: dict[int, FrozenTrial] = {}
    columns: tuple[str, ...] = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
    for trial_id, number, state, started, completed in rows(_TRIALS, "number", *columns):
        kept[trial_id] = FrozenTrial(
            number=number,
            trial_id=trial_id,
            state=state,
            value=None,
            values=None,
            datetime_start=started,
            datetime_complete=completed,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
    columns = ("trial_id", "param_name", "param_value", "distribution_json")
    for trial_id, name, internal, text in rows(_PARAMS, "param_id", *columns):
        distribution = _distribution(text)
        kept[trial_id].distributions[name] = distribution
        kept[trial_id].params[name] = distribution.to_external_repr(internal)
    to_value = models.TrialValueModel.stored_repr_to_value
    for trial_id, value, kind in rows(_VALUES, "objective", "trial_id", "value", "value_type"):
        kept[trial_id].values = [*(kept[trial_id].values or ()), to_value(value, kind)]
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    columns = ("trial_id", "step", "intermediate_value", "intermediate_value_type")
    for trial_id, step, value, kind in rows(_STEPS, "step", *columns):
        kept[trial_id].intermediate_values[step] = to_step(value, kind)
    for table, attribute in ((_ATTRS, "system_attrs"), (_USER_ATTRS, "user_attrs")):
        for trial_id, key, text in rows(table, "key", "trial_id", "key", "value_json"):
            getattr(kept[trial_id], attribute)[key] = json.loads(text)
    return list(kept.values())


def _storage(url: str, skip_table_creation: bool = False) -> RDBStorage:
    # Optuna fills in a template: braces that belong to the address are doubled.
    address = url.replace("{", "{{").replace("}", "}}")
    return RDBStorage(address, skip_table_creation=skip_table_creation, engine_kwargs={"poolclass": sa.pool.NullPool})


@contextmanager
def _optunas_errors() -> Iterator[None]:
    """Raises SQLAlchemy's own error where Optuna has wrapped it, and says what Optuna means by the others."""
    try:
        yield
    except StorageInternalError as exc:
        if isinstance(exc.__cause__, SQLAlchemyError):
            raise exc.__cause__ from exc
        raise
    except (RuntimeError, CommandError) as exc:
        raise NeurosweepError(
            "The table alembic_version in this database is not that of this Optuna: MLflow has one of the same name "
            "and needs a database of its own; tables of an older Optuna are upgraded by `optuna storage upgrade`.",
            "--database",
        ) from exc


def count_trials(connection: sa.Connection, study_id: int, label: str) -> dict[TrialState, int]:
    """How many trials of a study Optuna has in each state."""
    if not sa.inspect(connection).has_table(_TRIALS.name):
        return {}
    ours = {theirs: state for state, theirs in _STATES.items()}
    rows = connection.execute(
        sa.select(_TRIALS.c.state, sa.func.count())
        .join(_STUDIES, _STUDIES.c.study_id == _TRIALS.c.study_id)
        .join(_STUDY_ATTRS, _STUDY_ATTRS.c.study_id == _TRIALS.c.study_id)
        .where(
            _STUDIES.c.study_name == label,
            _STUDY_ATTRS.c.key == _OURS,
            _STUDY_ATTRS.c.value_json == json.dumps(study_id),
        )
        .group_by(_TRIALS.c.state)
    )
    return {ours.get(state, TrialState.RUNNING): count for state, count in rows}


class OptunaStudy:
    """One study in Optuna's tables.

    Args:
        study_id: Our study's id.
        label: Its name there.

    Raises:
        BadInputError: Optuna's study of this name is not ours.
    """

    def __init__(self, connection: sa.Connection, study_id: int, label: str) -> None:
        self.study_id = _ensure_study(connection, study_id, label)
        rows = connection.execute(
            sa.select(_TRIALS.c.number, _TRIALS.c.trial_id).where(_TRIALS.c.study_id == self.study_id)
        )
        self._trial_ids: dict[int, int] = {row.number: row.trial_id for row in rows}

    def knows(self, number: int) -> bool:
        """Whether the trial is there."""
        return number in self._trial_ids

    def propose(self, connection: sa.Connection, trials: Sequence[ProposedTrial]) -> None:
        """Adds running trials with their parameters; those that are there already are left alone."""
        new = [trial for trial in trials if trial.number not in self._trial_ids]
        if not new:
            return
        rows = [
            {
                "number": trial.number,
                "study_id": self.study_id,
                "state": OptunaState.RUNNING,
                "datetime_start": _naive(trial.started_at),
            }
            for trial in new
        ]
        inserted = sa.insert(_TRIALS).returning(_TRIALS.c.trial_id, sort_by_parameter_order=True)
        for trial, trial_id in zip(new, connection.scalars(inserted, rows), strict=True):
            self._trial_ids[trial.number] = trial_id
        params = [
            {
                "trial_id": self._trial_ids[trial.number],
                "param_name": param.name,
                "param_value": param.internal,
                "distribution_json": param.distribution,
            }
            for trial in new
            for param in trial.optuna
        ]
        insert_absent(connection, _PARAMS, params, ("trial_id", "param_name"))
        self._set_attrs(connection, ((trial.number, trial.attrs) for trial in new))

    def report(self, connection: sa.Connection, epochs: Sequence[EpochRow]) -> None:
        """Adds each epoch's validation metric as the intermediate value of that step."""
        rows = []
        for epoch in epochs:
            value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(epoch.validation_metric)
            rows.append(
                {
                    "trial_id": self._trial_ids[epoch.trial],
                    "step": epoch.epoch,
                    "intermediate_value": value,
                    "intermediate_value_type": kind,
                }
            )
        insert_absent(connection, _STEPS, rows, ("trial_id", "step"))

    def end(self, connection: sa.Connection, trials: Sequence[EndedTrial]) -> None:
        """Ends running trials. A pruned one's value is its last reported one, as Optuna has it; NaN is none."""
        if not trials:
            return
        states = [
            {
                "id": self._trial_ids[trial.number],
                "new_state": _STATES[trial.state],
                "ended": _naive(trial.ended_at),
            }
            for trial in trials
        ]
        connection.execute(_END_TRIAL, states)
        values = []
        for trial in trials:
            if trial.value is not None and not math.isnan(trial.value):
                value, kind = models.TrialValueModel.value_to_stored_repr(trial.value)
                row = {"trial_id": self._trial_ids[trial.number], "objective": 0, "value": value, "value_type": kind}
                values.append(row)
        insert_absent(connection, _VALUES, values, ("trial_id", "objective"))
        self._set_attrs(connection, ((trial.number, trial.attrs) for trial in trials))

    def set_study_attrs(self, connection: sa.Connection, system: dict[str, str], user: dict[str, str]) -> None:
        """Attributes of the study itself, as JSON texts."""
        for table, attrs in ((_STUDY_ATTRS, system), (_STUDY_USER_ATTRS, user)):
            rows = [{"study_id": self.study_id, "key": key, "value_json": text} for key, text in attrs.items()]
            insert_absent(connection, table, rows, ("study_id", "key"))

    def restore(self, connection: sa.Connection, lines: Sequence[OptunaTrialLine]) -> None:
        """Adds trials exactly as another database had them."""
        if not lines:
            return
        rows = [
            {
                "number": line.number,
                "study_id": self.study_id,
                "state": OptunaState[line.state],
                "datetime_start": line.started_at,
                "datetime_complete": line.ended_at,
            }
            for line in lines
        ]
        inserted = sa.insert(_TRIALS).returning(_TRIALS.c.trial_id, sort_by_parameter_order=True)
        here = list(zip(connection.scalars(inserted, rows), lines, strict=True))
        self._trial_ids |= {line.number: trial_id for trial_id, line in here}
        for table, key, made in (
            (_PARAMS, "param_name", [row for trial_id, line in here for row in _param_rows(trial_id, line)]),
            (_VALUES, "objective", [row for trial_id, line in here for row in _value_rows(trial_id, line)]),
            (_STEPS, "step", [row for trial_id, line in here for row in _step_rows(trial_id, line)]),
            (_ATTRS, "key", [row for trial_id, line in here for row in _attr_rows(trial_id, line.system_attrs)]),
            (_USER_ATTRS, "key", [row for trial_id, line in here for row in _attr_rows(trial_id, line.user_attrs)]),
        ):
            insert_absent(connection, table, made, ("trial_id", key))

    def _set_attrs(self, connection: sa.Connection, attrs: Iterable[tuple[int, dict[str, Any]]]) -> None:
        rows = [
            {"trial_id": self._trial_ids[number], "key": key, "value_json": json.dumps(value)}
            for number, values in attrs
            for key, value in values.items()
        ]
        insert_or_update(connection, _ATTRS, rows, ("trial_id", "key"), ("value_json",))


def _ensure_study(connection: sa.Connection, study_id: int, label: str) -> int:
    found = connection.scalar(sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == label))
    if found is not None:
        mark = sa.select(_STUDY_ATTRS.c.value_json).where(_STUDY_ATTRS.c.study_id == found, _STUDY_ATTRS.c.key == _OURS)
        _check_ours(json.loads(connection.scalar(mark) or "null"), study_id, label)
        return int(found)
    made = connection.scalar(sa.insert(_STUDIES).values(study_name=label).returning(_STUDIES.c.study_id))
    connection.execute(sa.insert(_DIRECTIONS).values(direction=StudyDirection.MINIMIZE, study_id=made, objective=0))
    connection.execute(sa.insert(_STUDY_ATTRS).values(study_id=made, key=_OURS, value_json=json.dumps(study_id)))
    return int(made)


def _check_ours(mark: object, study_id: int, label: str) -> None:
    if mark != study_id:
        raise BadInputError(
            f"Optuna has a study {label!r} in this database that is not ours, and trials of the two would mix: "
            "submit under another name.",
            "--database",
        )


def _naive(moment: datetime) -> datetime:
    """Optuna keeps naive UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None)


# A study as a whole, out of the tables and into them

_TRIALS_AT_ONCE = 250

Kept = dict[str, Any]


def stored_attrs(connection: sa.Connection, study_id: int, label: str) -> dict[str, dict[str, str]] | None:
    """The study's own attributes as JSON texts, without our mark; None where Optuna has no such study."""
    found = _find(connection, study_id, label)
    if found is None:
        return None
    kept = {}
    for name, table in (("system", _STUDY_ATTRS), ("user", _STUDY_USER_ATTRS)):
        mine = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == found, table.c.key != _OURS)
        kept[name] = {row.key: row.value_json for row in connection.execute(mine)}
    return kept


def stored_trials(connection: sa.Connection, study_id: int, label: str) -> Iterator[Kept]:
    """The study's trials by number, as an `OptunaTrialLine` says them; a few hundred in memory at a time."""
    found = _find(connection, study_id, label)
    if found is None:
        return
    # Their ids alone first: no cursor stays open between two reads.
    ids = connection.scalars(
        sa.select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == found).order_by(_TRIALS.c.number)
    ).all()
    for first in range(0, len(ids), _TRIALS_AT_ONCE):
        yield from _kept_trials(connection, ids[first : first + _TRIALS_AT_ONCE])


def _find(connection: sa.Connection, study_id: int, label: str) -> int | None:
    if not sa.inspect(connection).has_table(_STUDIES.name):
        return None
    found = connection.scalar(sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == label))
    return None if found is None else _ensure_study(connection, study_id, label)


def _kept_trials(connection: sa.Connection, ids: Sequence[int]) -> list[Kept]:
    def rows(table: sa.Table, order: str) -> Iterable[sa.Row[Any]]:
        return connection.execute(sa.select(table).where(table.c.trial_id.in_(ids)).order_by(table.c[order]))

    kept: dict[int, Kept] = {}
    for row in rows(_TRIALS, "number"):
        kept[row.trial_id] = {
            "number": row.number,
            "state": row.state.name,
            "started_at": row.datetime_start,
            "ended_at": row.datetime_complete,
            **{name: [] for name in ("values", "params", "steps")},
            **{name: {} for name in ("system_attrs", "user_attrs")},
        }
    for row in rows(_PARAMS, "param_id"):
        param = {"name": row.param_name, "value": row.param_value, "distribution": row.distribution_json}
        kept[row.trial_id]["params"].append(param)
    for row in rows(_VALUES, "objective"):
        value = models.TrialValueModel.stored_repr_to_value(row.value, row.value_type)
        kept[row.trial_id]["values"].append((row.objective, written(value)))
    for row in rows(_STEPS, "step"):
        value = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value(
            row.intermediate_value, row.intermediate_value_type
        )
        kept[row.trial_id]["steps"].append((row.step, written(value)))
    for name, table in (("system_attrs", _ATTRS), ("user_attrs", _USER_ATTRS)):
        for row in rows(table, "key"):
            kept[row.trial_id][name][row.key] = row.value_json
    return list(kept.values())


def _param_rows(trial_id: int, line: OptunaTrialLine) -> Iterator[Kept]:
    for param in line.params:
        yield {
            "trial_id": trial_id,
            "param_name": param.name,
            "param_value": param.value,
            "distribution_json": param.distribution,
        }


def _value_rows(trial_id: int, line: OptunaTrialLine) -> Iterator[Kept]:
    for objective, stored in line.values:
        value, kind = models.TrialValueModel.value_to_stored_repr(read(stored))
        yield {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}


def _step_rows(trial_id: int, line: OptunaTrialLine) -> Iterator[Kept]:
    for step, stored in line.steps:
        value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(read(stored))
        yield {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": kind,
        }


def _attr_rows(trial_id: int, attrs: dict[str, str]) -> Iterator[Kept]:
    return ({"trial_id": trial_id, "key": key, "value_json": text} for key, text in attrs.items())


def check_param(param: ParamLine) -> None:
    """Optuna's reader takes a parameter out of its distribution without a look.

    Raises:
        ValueError: There is no such distribution, or the value is not of it.
    """
    try:
        held = _distribution(param.distribution)._contains(param.value)
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise ValueError("a parameter's distribution is none of Optuna's") from None
    if not held:
        raise ValueError("a parameter's value is not of its distribution")


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
