"""A database with studies in every state, put there by the store's own methods."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.records import Batch, Claim, EndedTrial, NewStudy, ProposedTrial, StudyRecord, StudyState, TrialState
from storage.store import Store

STUDY_TEXT = "name: digits\ndata: {source: digits}\nmetric: error\nbudget: {trials: 4, epochs: 30}\n"
SPEC = {
    "name": "digits",
    "data": {"source": "digits"},
    "metric": "error",
    "model": "mlp",
    "budget": {"trials": 4, "epochs": 30},
}
PARAMS = {
    "model": "mlp",
    "layers": 2,
    "neurons_1": 128,
    "neurons_2": 64,
    "activation": "relu",
    "learning_rate": 0.0021,
    "optimizer": "adam",
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "dropout": 0.1,
    "batch_norm": True,
    "batch_size": 64,
    "schedule": "cosine",
}
VALIDATION = (0.08, 0.012, 0.05)
"""Of the trials 0, 1 and 2; trial 1 is the best."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Ended]


@dataclass(frozen=True)
class Shelf:
    """Puts studies into the database as a dispatcher would."""

    store: Store

    def queued(self, name: str = "digits") -> StudyRecord:
        return self.store.submit(NewStudy(name=name, spec={**SPEC, "name": name}, text=STUDY_TEXT, trials=4))

    def running(self, name: str = "digits", errors: Sequence[str | None] = (None, None, None)) -> Claim:
        """Three trials: 0 pruned, 1 complete, 2 still running; those with an error failed instead."""
        claim = self.store.claim("dispatcher", study_id=self.queued(name).id)
        assert claim is not None
        start = datetime.now(UTC) - timedelta(seconds=30)
        proposed = tuple(
            ProposedTrial(number=number, params=PARAMS, settings={}, seed=number, started_at=start)
            for number in range(3)
        )
        self.store.started(claim, "hash", claim.study.spec)
        self.store.optuna_trials(claim.study.id)  # makes Optuna's tables, as a dispatcher does before its first trial
        self.store.record(claim, Batch(proposed=proposed, assigned=dict.fromkeys(range(3), "worker-1")))
        states = (TrialState.PRUNED, TrialState.COMPLETE, TrialState.RUNNING)
        ended = tuple(
            ended_trial(
                number, TrialState.FAILED if error else state, error, start + timedelta(seconds=10 * (number + 1))
            )
            for number, (state, error) in enumerate(zip(states, errors, strict=True))
            if error or state is not TrialState.RUNNING
        )
        self.store.record(claim, Batch(ended=ended))
        return claim

    def finished(self, name: str = "digits", tracking: str = "sqlite:///mlflow.db") -> StudyRecord:
        claim = self.running(name)
        self.store.record(claim, Batch(ended=(ended_trial(2, TrialState.COMPLETE, None, datetime.now(UTC)),)))
        self.store.finish(claim, StudyState.FINISHED, result=result(claim.study, tracking))
        return self.store.find(claim.study.label)

    def ended(self, state: StudyState, name: str = "digits", error: str | None = None) -> StudyRecord:
        claim = self.running(name, errors=("loss is nan",) * 3 if state is StudyState.FAILED else (None,) * 3)
        self.store.finish(claim, state, error=error)
        return self.store.find(claim.study.label)


def result(study: StudyRecord, tracking: str) -> dict[str, Any]:
    return {
        "study": study.label,
        "state": "finished",
        "metric": "error",
        "trials": {"total": 3, "complete": 2, "pruned": 1, "failed": 0},
        "best": {
            "trial": 1,
            "params": PARAMS,
            "train": 0.001,
            "validation": 0.012,
            "test": 0.017,
            "test_interval": [0.008, 0.031],
            "epochs": 30,
            "best_epoch": 28,
            "weights": 21834,
            "model": f"models:/{study.name}@champion",
        },
        "splits": {"train": 1257, "validation": 270, "test": 270},
        "seconds": 41.2,
        "mlflow": {"tracking_uri": tracking, "experiment_id": "1", "run_id": "abc"},
        "chance": 0.9,
        "worth": ["The winner beats chance (0.9 error) by far."],
        "leader": [
            {
                "trial": number,
                "params": PARAMS,
                "train": 0.001,
                "validation": VALIDATION[number],
                "epochs": 30,
                "best_epoch": 28,
            }
            for number in (1, 2)
        ],
    }


def environment(**more: str) -> dict[str, str]:
    """For a process of its own: nothing of the caller's settings, one thread."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NEUROSWEEP_", "RAY_"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def ended_trial(number: int, state: TrialState, error: str | None, at: datetime) -> EndedTrial:
    good = state is not TrialState.FAILED
    return EndedTrial(
        number=number,
        state=state,
        value=VALIDATION[number] if good else None,
        train=0.001 if state is TrialState.COMPLETE else None,
        validation=VALIDATION[number] if good else None,
        epochs=30 if state is TrialState.COMPLETE else 4,
        best_epoch=28 if state is TrialState.COMPLETE else 4,
        seconds=2.5,
        weights=21834,
        worker="worker-1",
        error=error,
        ended_at=at,
    )
