"""What the diagnosis works with and what it says: frozen records that every part of the room shares. Standard library
only, so that the pages and the commands read them without numpy or torch.

All metrics are such that smaller is better. An interval is one of 95 % unless a field says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from storage.records import ExtraRun, Opening, Probe

__all__ = [
    "Advice",
    "Border",
    "Contender",
    "DataCurve",
    "DataFindings",
    "Diagnosis",
    "ExtraRun",
    "Level",
    "Levels",
    "Opening",
    "Probe",
    "Report",
    "SeedNoise",
    "SpaceFindings",
    "StoppingFindings",
    "Suspect",
    "Verdict",
]


class Verdict(StrEnum):
    """What holds the study's winner back."""

    NOT_LEARNING = "not_learning"
    """Its training metric is near chance."""
    UNDERFITTING = "underfitting"
    """Its training metric is well above a person's, or the target's."""
    OVERFITTING = "overfitting"
    """Its validation metric is well above its training metric."""
    OVER_SEARCHED = "over_searched"
    """Its test metric is well above its validation metric: the search has fitted the validation split."""
    NOISE_BOUND = "noise_bound"
    """What gaps there are, are smaller than their intervals."""
    DONE = "done"
    """It is where it was wanted, and nothing that was tried would make it better."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value with its interval; the value alone where there is no sample behind it, as for a person's."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels that a diagnosis compares.

    Attributes:
        chance: The best constant guess.
        simple: The best of the simple models; `simple_models` has each of them by name.
        human: The study file's `human`.
        target: The study file's `budget.target`.
        test: None while the test split is shut.
        split: The split on which `chance` and `simple` are measured: ``test`` where that is open, else ``validation``.
    """

    chance: Level
    simple: Level | None
    simple_models: dict[str, Level]
    human: float | None
    target: float | None
    train: Level
    validation: Level
    test: Level | None
    split: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to change.

    Attributes:
        key: The study file's key, dotted (``space.dropout``, ``budget.epochs``), or ``data`` for the rows themselves.
        change: What to do, in the imperative.
        why: The numbers behind it.
        measured: Whether an extra run has shown that it helps; False for what follows from the trials alone.
        up: Whether the key's value is to grow (True) or to shrink (False); None where it is neither, or not known.
    """

    key: str
    change: str
    why: str
    measured: bool = False
    up: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The verdict, the numbers that led to it, and what follows."""

    verdict: Verdict
    reasons: tuple[str, ...]
    advice: tuple[Advice, ...]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of the best trials with the runs from other seeds.

    Attributes:
        values: Validation metrics from the fresh seeds; the search's own run is not among them.
        tied: Whether it can't be told from the best one.
    """

    trial: int
    validation: float
    values: tuple[float, ...]
    mean: float
    std: float
    weights: int
    tied: bool


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """What other seeds make of the best trials.

    Attributes:
        std: Of the metric between seeds, pooled over the contenders.
        luck: How much of the winner's validation metric was luck: its mean over fresh seeds less its own value.
        simplest: The tied contender with the fewest weights.
        best: The one with the best mean.
    """

    contenders: tuple[Contender, ...]
    std: float
    luck: Level
    simplest: int
    best: int


@dataclass(frozen=True, kw_only=True)
class DataCurve:
    """The validation metric over the number of train rows, with a power law ``a * rows ** -b + c`` where it fits.

    Attributes:
        rows_for_target: Rows that would reach the target or a person's level; None where the fit does not allow it.
        why_not: Why no law or no such number is given.
    """

    rows: tuple[int, ...]
    values: tuple[float, ...]
    a: float | None
    b: float | None
    c: float | None
    rows_for_target: Level | None
    why_not: str | None


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A row that the winner gets wrong with a high loss: its label may be wrong.

    Attributes:
        split: ``train`` or ``validation``.
        row: Its id in the source, from 0.
        label: What the data say.
        predicted: What the winner says.
    """

    split: str
    row: int
    label: str
    predicted: str
    loss: float


@dataclass(frozen=True, kw_only=True)
class DataFindings:
    """What the data themselves tell.

    Attributes:
        warnings: One sentence each, the gravest first.
        suspects: The highest loss first.
        leaks: Columns that predict the target almost perfectly by themselves, with their score.
        duplicates: Rows that stand in two splits, by ``train/validation`` and the like: exact ones and near ones.
        classes: Rows of each class in the train split; empty for regression.
    """

    warnings: tuple[str, ...]
    suspects: tuple[Suspect, ...]
    leaks: dict[str, float]
    duplicates: dict[str, tuple[int, int]]
    classes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Border:
    """A parameter whose best values press against an end of its range.

    Attributes:
        end: ``upper`` or ``lower``.
        near: How many of the `of` best trials are within 5 % of that end.
        movable: Whether the range can be widened there at all.
    """

    key: str
    end: str
    near: int
    of: int
    bound: float
    movable: bool


@dataclass(frozen=True, kw_only=True)
class SpaceFindings:
    """What the trials say of the search space.

    Attributes:
        importances: By parameter: mean and standard deviation over repetitions; sums to about 1.
        interactions: Pairs of parameters that matter together, with their share, the largest first.
        barren: Regions that never work, in words.
        good: For each numeric parameter, the 10 % and 90 % quantiles among the best trials.
    """

    borders: tuple[Border, ...]
    importances: dict[str, tuple[float, float]]
    interactions: tuple[tuple[str, str, float], ...]
    barren: tuple[str, ...]
    good: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class StoppingFindings:
    """Whether stopping early was right, and whether searching on was worth it.

    Attributes:
        stopped: Trials that the pruner ended.
        audited: Trials that it would have ended and that were trained on to the end, for this.
        beaten: How many of the audited would have beaten the winner.
        share: ``beaten / audited`` with Wilson's interval; None where none was audited.
        saved_seconds: Training time that stopping has saved, about.
        last_half: How much the second half of the trials has bettered the best validation metric.
        stopped_for: Why the study ended before its trials were spent; None where it did not.
    """

    stopped: int
    audited: int
    beaten: int
    share: Level | None
    saved_seconds: float
    last_half: float
    stopped_for: str | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        trial: The winner.
        settings: The winner's, under the study file's names.
        not_run: Extra runs that were left out for the time they would have taken, in words.
        splits: Rows of train, validation, test.
        warnings: What a reader must know beside the verdict, the gravest first; `data.warnings` among them.
        seconds: Of the study's work.
        extra_seconds: Of the extra runs that were made for reports, on as many workers as the study had.
    """

    study: str
    task: str
    metric: str
    state: str
    trial: int
    settings: dict[str, Any]
    epochs: int
    weights: int
    diagnosis: Diagnosis
    levels: Levels
    splits: dict[str, int]
    openings: tuple[Opening, ...]
    extra_runs: tuple[ExtraRun, ...]
    not_run: tuple[str, ...]
    seeds: SeedNoise | None
    data_curve: DataCurve | None
    data: DataFindings
    space: SpaceFindings
    stopping: StoppingFindings
    warnings: tuple[str, ...]
    trials: dict[str, int]
    seconds: float
    extra_seconds: float
