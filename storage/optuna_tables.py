"""Optuna's own tables, written in bulk inside our transaction. The only module of storage that imports Optuna.

Optuna's storage API commits each call by itself, which costs 100 ms and more for a trial; the same rows in one
transaction cost less than one. This leans on the table models of the pinned Optuna version, and a contract test holds
it to what Optuna's own reader and writer make of the same trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.exc import DatabaseError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from storage.inserting import insert_absent, insert_or_update
from storage.records import EndedTrial, EpochRow, ProposedTrial, TrialState

_STUDIES: sa.Table = models.StudyModel.__table__
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


# Optuna's first start on an empty database is not safe against another one at the same moment (optuna#1092), but what
# it does is harmless when done again.
@retry(
    retry=retry_if_exception_type(DatabaseError), stop=stop_after_attempt(8), wait=wait_random(0.05, 0.5), reraise=True
)
def create_tables(url: str) -> None:
    """Lets Optuna make its tables, where they are missing."""
    RDBStorage(url, engine_kwargs={"poolclass": sa.pool.NullPool})


def load_trials(url: str, label: str) -> list[FrozenTrial]:
    """The study's trials as Optuna reads them, by number; none where there is no such study."""
    storage = RDBStorage(url, skip_table_creation=True, engine_kwargs={"poolclass": sa.pool.NullPool})
    try:
        study_id = storage.get_study_id_from_name(label)
    except KeyError:
        return []
    return sorted(storage.get_all_trials(study_id), key=lambda trial: trial.number)


class OptunaStudy:
    """One study in Optuna's tables.

    Args:
        label: Its name there.
    """

    def __init__(self, connection: sa.Connection, label: str) -> None:
        self.study_id = _ensure_study(connection, label)
        rows = connection.execute(
            sa.select(_TRIALS.c.number, _TRIALS.c.trial_id).where(_TRIALS.c.study_id == self.study_id)
        )
        self._trial_ids: dict[int, int] = {row.number: row.trial_id for row in rows}

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
        if params:
            connection.execute(sa.insert(_PARAMS), params)
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
        """Ends running trials. A pruned one's value is its last reported one, as Optuna has it."""
        for trial in trials:
            connection.execute(
                sa.update(_TRIALS)
                .where(_TRIALS.c.trial_id == self._trial_ids[trial.number])
                .values(state=_STATES[trial.state], datetime_complete=_naive(trial.ended_at))
            )
        values = [
            {
                "trial_id": self._trial_ids[trial.number],
                "objective": 0,
                "value": trial.value,
                "value_type": models.TrialValueModel.TrialValueType.FINITE,
            }
            for trial in trials
            if trial.value is not None and math.isfinite(trial.value)
        ]
        insert_absent(connection, _VALUES, values, ("trial_id", "objective"))
        self._set_attrs(connection, ((trial.number, trial.attrs) for trial in trials))

    def _set_attrs(self, connection: sa.Connection, attrs: Iterable[tuple[int, dict[str, Any]]]) -> None:
        rows = [
            {"trial_id": self._trial_ids[number], "key": key, "value_json": json.dumps(value)}
            for number, values in attrs
            for key, value in values.items()
        ]
        insert_or_update(connection, _ATTRS, rows, ("trial_id", "key"), ("value_json",))


def _ensure_study(connection: sa.Connection, label: str) -> int:
    found = connection.scalar(sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == label))
    if found is not None:
        return int(found)
    study_id = connection.scalar(sa.insert(_STUDIES).values(study_name=label).returning(_STUDIES.c.study_id))
    connection.execute(sa.insert(_DIRECTIONS).values(direction=StudyDirection.MINIMIZE, study_id=study_id, objective=0))
    return int(study_id)


def _naive(moment: datetime) -> datetime:
    """Optuna keeps naive UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None)
