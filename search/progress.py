"""What the user sees of a running study: a snapshot that the dispatcher makes and the screen draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WorkerActivity:
    """What one worker is doing.

    Attributes:
        trial: The number of the trial that it trains; None while it waits.
        epoch: The last epoch that is done, from 1; 0 before the first.
    """

    name: str
    trial: int | None
    epoch: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One study at one moment.

    Attributes:
        label: ``name`` or ``name@N``.
        stage: What is going on in a few words: ``reading data``, ``starting workers``, ``training``, ``testing the
            winner``, the state it ended in, ``publishing to MLflow``, or how it failed.
        complete, pruned, failed, running: Trials in each state; `total` is what was asked for.
        best_value: The best trial's validation metric; None before there is one.
        best_params: The best trial's settings under the study file's names.
        elapsed: Seconds since the study was claimed.
        left: Seconds that are probably left; None where there is nothing to tell it from.
    """

    label: str
    metric: str
    stage: str
    total: int
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    best_trial: int | None = None
    best_value: float | None = None
    best_params: dict[str, Any] | None = None
    workers: tuple[WorkerActivity, ...] = ()
    elapsed: float = 0.0
    left: float | None = None
