"""What the storage room takes and returns: frozen records and the states they can be in. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class StudyState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    """Interrupted; `resume` goes on with the trials that are there."""
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (StudyState.FINISHED, StudyState.FAILED, StudyState.CANCELLED)
"""States of a study that has come to an end: no trial of it is under way. A stopped one's go on when it is resumed."""


class TrialState(StrEnum):
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


class FactKind(StrEnum):
    """What the outbox tells MLflow."""

    STUDY_STARTED = "study_started"
    TRIAL_ENDED = "trial_ended"
    STUDY_ENDED = "study_ended"
    EXTRA_RUN_ENDED = "extra_run_ended"
    PAGE_WRITTEN = "page_written"


OF_PARENT = (FactKind.STUDY_STARTED, FactKind.STUDY_ENDED)
"""Facts that say how far a study is: its parent run is told them in order."""


@dataclass(frozen=True, kw_only=True)
class NewStudy:
    """A study to put in the queue.

    Attributes:
        spec: The study file with every default filled in, as plain JSON values.
        text: The study file as its user wrote it.
        trials: How many trials are asked for.
        tree, round, rounds, sealed: As in `StudyRecord`; the first round of a tree names no tree, as its uid is not
            known yet.
    """

    name: str
    spec: dict[str, Any]
    text: str
    trials: int
    tree: str | None = None
    round: int | None = None
    rounds: int | None = None
    sealed: bool = False


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study. All times are UTC and aware; `number` is the N of ``name@N``, from 1.

    Attributes:
        uid: Its name among all databases, ``[0-9a-f]``: MLflow's tags and the study's folder bear it.
        worked: Seconds that earlier claims have worked on it.
        notice: Why it stands still, while it does.
        tree: The uid of the first study of the rounds that it is one of; its own for that first one. None: no rounds.
        round: Which of them it is, from 1.
        rounds: How many there are to be at most.
        sealed: Its test split stays shut when it ends.
    """

    id: int
    name: str
    number: int
    spec: dict[str, Any]
    text: str
    trials: int
    state: StudyState
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    result: dict[str, Any] | None
    split_hash: str | None
    cancel_requested: bool
    uid: str
    worked: float = 0.0
    notice: str | None = None
    tree: str | None = None
    round: int | None = None
    rounds: int | None = None
    sealed: bool = False

    @property
    def label(self) -> str:
        """``name`` for the first study of a name, ``name@N`` for a later one; also its name in Optuna's tables."""
        return self.name if self.number == 1 else f"{self.name}@{self.number}"


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A line of `neurosweep list`: the study, its trials counted by state, and the best validation metric."""

    study: StudyRecord
    counts: dict[TrialState, int]
    best: float | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one study until the lease runs out. Every write carries the token.

    Attributes:
        study: The study as it was when it was claimed.
        token: The fencing token: grows with every claim of this study.
    """

    study: StudyRecord
    token: int


@dataclass(frozen=True, kw_only=True)
class AbandonedStudy:
    """A study that is marked as running, though nobody has renewed the lease on it for some seconds."""

    study: StudyRecord
    dispatcher: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class OptunaParam:
    """One searched parameter as Optuna stores it: its value in internal representation, its distribution as JSON."""

    name: str
    internal: float
    distribution: str


@dataclass(frozen=True, kw_only=True)
class ProposedTrial:
    """A trial that has just been proposed and is going to a worker.

    Attributes:
        params: The settings under the study file's names, the fixed ones included; scalars only.
        settings: What the trainer builds from, as JSON values.
        optuna: Only what was searched.
        attrs: System attributes that Optuna's sampler left on the trial.
        twin: The number of an earlier trial with equal settings; None for new ones. It is not recorded.
    """

    number: int
    params: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    optuna: tuple[OptunaParam, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    twin: int | None = None
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of one trial; `at` is the frozen time stamp under which MLflow gets it."""

    trial: int
    epoch: int
    train_loss: float
    train_metric: float
    validation_loss: float
    validation_metric: float
    seconds: float
    at: datetime


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """A trial that is decided.

    Attributes:
        value: What Optuna was told: the validation metric of a complete trial, the last reported one of a pruned trial.
        validation: The best epoch's metric on the validation split.
        pack: The lowest number among the trials that it was last trained together with; None where it never was.
        memory: The most that its worker held while training it, in bytes; None where that is not known.
        would_stop: The epoch after which the pruner would have ended it, had it not been trained on as an audit.
    """

    number: int
    state: TrialState
    value: float | None
    train: float | None
    validation: float | None
    epochs: int
    best_epoch: int
    seconds: float
    weights: int
    worker: str
    error: str | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    ended_at: datetime
    pack: int | None = None
    memory: int | None = None
    would_stop: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as it stands; `pack`, `memory` and `would_stop` as in `EndedTrial`, `deaths` the workers that died of
    it."""

    number: int
    state: TrialState
    params: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    train: float | None
    validation: float | None
    epochs: int
    best_epoch: int
    seconds: float
    weights: int
    worker: str | None
    error: str | None
    started_at: datetime
    ended_at: datetime | None
    pack: int | None = None
    deaths: int = 0
    memory: int | None = None
    would_stop: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that MLflow has to be told, once.

    Attributes:
        key: Unique; of ``[a-z0-9-]`` only, such as ``study-12-trial-7``.
        trial: The trial's number, for `FactKind.TRIAL_ENDED`, and that of the trial that an extra run began with.
        attempts: How often MLflow has refused it.
    """

    key: str
    kind: FactKind
    trial: int | None = None
    attempts: int = 0


@dataclass(frozen=True, kw_only=True)
class Behind:
    """How far MLflow is behind.

    Attributes:
        pending: Facts that wait and will be tried again.
        set_aside: Facts that failed too often and wait for a `sync`.
        oldest_reason: Why the oldest pending one has not been published, where an attempt was made.
        set_aside_reason: Why the oldest one that is set aside has been.
        next_try: When the next pending one is tried, on the database's clock; None where none waits or one is due.
    """

    pending: int
    set_aside: int
    oldest_reason: str | None = None
    set_aside_reason: str | None = None
    next_try: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one turn of the dispatcher writes, all in one transaction or not at all.

    Attributes:
        assigned: Worker name for each running trial that was just sent to one.
        deaths: How many workers have died of each trial that one has just died of.
        would_stop: For each trial that goes on as an audit from here, the epoch after which it would have ended.
    """

    proposed: tuple[ProposedTrial, ...] = ()
    epochs: tuple[EpochRow, ...] = ()
    ended: tuple[EndedTrial, ...] = ()
    facts: tuple[Fact, ...] = ()
    assigned: dict[int, str] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    would_stop: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MlflowRun:
    """Where a study's parent run is."""

    experiment_id: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class OutboxClaim:
    """The right to publish one study's facts until the lease runs out."""

    study: StudyRecord
    token: int


class Probe(StrEnum):
    """Why a network is trained once more, after the search."""

    ROWS = "rows"
    """The winner on a share of the train rows."""
    NEURONS = "neurons"
    """The winner with so many times the neurons (and filters)."""
    EPOCHS = "epochs"
    """The winner with so many times the epochs."""
    SEED = "seed"
    """One of the best trials from another seed."""


@dataclass(frozen=True, kw_only=True)
class ExtraRun:
    """A training run beside the search.

    Attributes:
        probe: What it is for.
        trial: The trial whose settings it began with.
        amount: The share of the rows, the factor of the neurons or epochs, or the number of the seed (1, 2, ...).
        settings: What was trained, as `Settings.to_json` gives it.
        train: The metric of the best epoch's network on the rows that it was trained on; None where it failed.
        validation: The metric of the best epoch's network on the validation split; None where it failed.
        rows: Train rows that it saw.
        curve: Validation metric after each epoch; NaN where it was not finite.
        at: When it ended, in UTC; where it is None, the moment when it is recorded.
    """

    probe: Probe
    trial: int
    amount: float
    settings: dict[str, Any]
    seed: int
    train: float | None
    validation: float | None
    rows: int
    epochs: int
    seconds: float
    weights: int
    curve: tuple[float, ...] = ()
    error: str | None = None
    at: datetime | None = None

    @property
    def name(self) -> str:
        """Such as ``seed 3 of trial 57``."""
        return run_name(self.probe, self.trial, self.amount)


def run_name(probe: Probe, trial: int, amount: float) -> str:
    """What an extra run is called."""
    what = {
        Probe.ROWS: f"{100 * amount:g} % of the rows",
        Probe.NEURONS: f"{amount:g} times the neurons",
        Probe.EPOCHS: f"{amount:g} times the epochs",
        Probe.SEED: f"seed {amount:g}",
    }
    return f"{what[probe]} of trial {trial}"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """One look at the test split.

    Attributes:
        at: UTC.
        reason: In a few words, such as ``the winner``.
    """

    at: datetime
    trial: int | None
    reason: str
