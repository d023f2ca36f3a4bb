"""Trials and extra runs with made-up figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from storage.records import EpochRow, ExtraRun, Probe, TrialRecord, TrialState

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

PARAMS: dict[str, Any] = {
    "model": "mlp",
    "layers": 1,
    "neurons_1": 32,
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": "adam",
    "weight_decay": 0.001,
    "dropout": 0.1,
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
}


def trial(number: int, *, validation: float | None, **changes: Any) -> TrialRecord:
    """A complete trial; `params` are merged into the usual ones, and the settings follow them."""
    params = PARAMS | changes.pop("params", {})
    given: dict[str, Any] = {
        "number": number,
        "state": TrialState.COMPLETE if validation is not None else TrialState.FAILED,
        "params": params,
        "settings": {
            "learning_rate": params["learning_rate"],
            "dropout": params["dropout"],
            "weight_decay": params["weight_decay"],
            "neurons": tuple(params[f"neurons_{layer + 1}"] for layer in range(params["layers"])),
        },
        "seed": number,
        "train": validation,
        "validation": validation,
        "epochs": 10,
        "best_epoch": 10,
        "seconds": 2.0,
        "weights": 1000,
        "worker": "worker-0",
        "error": None,
        "started_at": START + timedelta(minutes=number),
        "ended_at": START + timedelta(minutes=number + 1),
    }
    return TrialRecord(**{**given, **changes})


def extra_run(probe: Probe, number: int, amount: float, *, validation: float | None, **changes: Any) -> ExtraRun:
    given: dict[str, Any] = {
        "probe": probe,
        "trial": number,
        "amount": amount,
        "settings": {},
        "seed": 1,
        "train": None if validation is None else validation / 2,
        "validation": validation,
        "rows": 1000,
        "epochs": 10,
        "seconds": 1.0,
        "weights": 1000,
    }
    return ExtraRun(**{**given, **changes})


def epoch_rows(number: int, losses: list[float], metrics: list[float] | None = None) -> list[EpochRow]:
    return [
        EpochRow(
            trial=number,
            epoch=at + 1,
            train_loss=loss,
            train_metric=loss,
            validation_loss=loss,
            validation_metric=(metrics or losses)[at],
            seconds=0.1,
            at=START,
        )
        for at, loss in enumerate(losses)
    ]
