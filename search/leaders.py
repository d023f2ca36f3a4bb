"""The order of a study's complete trials, and what a trial shows of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from storage.records import TrialRecord, TrialState

SHOWN = 5
"""Leaders in a study's result."""


def leaders(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials, best first; of equal ones the earlier first, as Optuna does."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.validation is not None]
    return sorted(complete, key=lambda trial: (trial.validation, trial.number))


def trial_counts(trials: Collection[TrialRecord]) -> dict[str, int]:
    """How many trials there are, and how many ended in which way, as JSON values."""
    counts = Counter(trial.state for trial in trials)
    ways = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
    return {"total": len(trials)} | {state.value: counts[state] for state in ways}


def trial_figures(trial: TrialRecord) -> dict[str, Any]:
    """As JSON values; ``epochs`` counts those that it was trained for, ``best_epoch`` is the one that was kept."""
    return {
        "trial": trial.number,
        "params": trial.params,
        "train": trial.train,
        "validation": trial.validation,
        "epochs": trial.epochs,
        "best_epoch": trial.best_epoch,
    }
