"""What a worker is asked to do and what it hands back. Plain frozen records; NumPy and the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.settings import Settings

OUT_OF_MEMORY = "out of memory"
"""How the reason of a trial begins that did not fit."""


class Metric(StrEnum):
    """What trials are compared by; smaller is better for each."""

    ERROR = "error"
    BALANCED_ERROR = "balanced_error"
    LOG_LOSS = "log_loss"
    MSE = "mse"
    MAE = "mae"


class Outcome(StrEnum):
    """How a segment ended."""

    PAUSED = "paused"
    """The segment's epochs are done, the trial's are not: its state waits in the worker."""
    FINISHED = "finished"
    """All of the trial's epochs are done."""
    STOPPED = "stopped"
    """The worker was told to stop before the segment's end; the state is gone."""
    FAILED = "failed"
    """The loss was not finite, or the network could not be built or trained; `SegmentResult.reason` says which."""
    OUT_OF_MEMORY = "out_of_memory"
    """The trial did not fit, even alone in this worker; `SegmentResult.reason` says how much it takes."""
    TOO_LONG = "too_long"
    """The time that the trial had left was up before the segment's end; the state is gone."""


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """One segment of one trial.

    Attributes:
        trial: The trial's number in its study.
        seed: Every random draw of the trial comes from this.
        epochs: The most epochs that the trial may get; the learning-rate schedule spans them.
        until: Train up to and including this epoch (from 1), from wherever the trial stands.
        known_epochs: Epochs whose figures the caller has: a state that was saved after more of them is of no use.
        keep_up_to: Hand the best epoch's weights back when the trial finishes with a validation metric at or under
            this.
        seconds: Training time that the trial has left for epochs behind the known ones, counted as
            `SegmentResult.seconds` is.
    """

    trial: int
    settings: Settings
    seed: int
    metric: Metric
    epochs: int
    until: int
    keep_up_to: float = float("inf")
    known_epochs: int = 0
    seconds: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Figures of one epoch, counted from 1.

    `train_loss` and `train_metric` are averages over the epoch's batches while the network was learning (dropout on);
    the validation figures are those of the network at the epoch's end (dropout off).
    """

    epoch: int
    train_loss: float
    train_metric: float
    validation_loss: float
    validation_metric: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What came of one `TrialWork`.

    Attributes:
        epochs: This segment's epochs, in order; may be empty.
        best_epoch: The epoch with the smallest validation metric so far in the whole trial; 0 where there is none.
        train: The metric of the best epoch's network on the whole train split, dropout off; None until finished.
        validation: The metric of the best epoch's network on the validation split; None where there is none.
        weight_count: Trainable numbers in the network.
        seconds: Time that this segment took in the worker; of a pack's time a trial has its share, by its weights.
        weights: The best epoch's weights by name, where they were asked for.
        reason: Why the trial failed, in one line.
        precision: ``float32`` or ``bfloat16``: what the products were computed in.
        memory: The most bytes that training took of the worker's memory (the GPU's, where it has one); of a pack's a
            trial has its share, by what is predicted for each. None where nothing was trained, or nothing is known.
    """

    trial: int
    outcome: Outcome
    epochs: tuple[EpochResult, ...]
    best_epoch: int
    train: float | None
    validation: float | None
    weight_count: int
    seconds: float
    weights: dict[str, npt.NDArray[np.generic]] | None = None
    reason: str | None = None
    precision: str = "float32"
    memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A trial's whole state at the end of an epoch: a trainer that takes it up goes on as if nothing had been between.

    Attributes:
        epoch: The last epoch that is done, counted from 1.
        arrays: Weights, running figures of batch norms, the optimizer's state, the states of the random generators, and
            the best network so far.
        facts: JSON values: the rest of the state, and whose state it is.
    """

    trial: int
    epoch: int
    arrays: dict[str, npt.NDArray[np.generic]]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A network on the test split.

    Attributes:
        outputs: float64 probabilities of shape (rows, classes), or predictions in the target's units of shape (rows,).
        value: The metric.
        truth: Class indices, or targets in their units, of shape (rows,).
    """

    __test__ = False  # pytest would take the name for a test class

    outputs: npt.NDArray[np.floating]
    value: float
    truth: npt.NDArray[np.number]
