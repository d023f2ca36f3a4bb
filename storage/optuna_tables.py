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
from typing import Any

import sqlalchemy as sa
from alembic.util import CommandError
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

__all__ = ["FrozenTrial", "OptunaStudy", "create_tables", "load_trials"]

_STUDIES: sa.Table = models.StudyModel.__table__
_STUDY_ATTRS: sa.Table = models.StudySystemAttributeModel.__table__
_DIRECTIONS: sa.Table = models.StudyDirectionModel.__table__
_TRIALS: sa.Table = models.TrialModel.__table__
_PARAMS: sa.Table = models.TrialParamModel.__table__
_ATTRS: sa.Table = models.TrialSystemAttributeModel.__table__
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


def load_trials(url: str, study_id: int, label: str) -> list[FrozenTrial]:
    """The study's trials as Optuna reads them, by number; none where there is no such study.

    Raises:
        BadInputError: Optuna's study of this name is not ours.
    """
    with _optunas_errors():
        storage = _storage(url, skip_table_creation=True)
        try:
            optuna_id = storage.get_study_id_from_name(label)
        except KeyError:
            return []
        _check_ours(storage.get_study_system_attrs(optuna_id).get(_OURS), study_id, label)
        return sorted(storage.get_all_trials(optuna_id), key=lambda trial: trial.number)


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
