"""The trials and epochs of a study as the columns that the report's scripts draw from. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import EpochRow, TrialRecord

MOST_EPOCHS = 400_000
"""Epochs whose figures a page holds, about six megabytes of them: those of the best trials."""


def trial_columns(trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """One list for each figure; what is unknown or not finite is None."""
    return {
        "number": [trial.number for trial in trials],
        "state": [trial.state.value for trial in trials],
        "validation": [_short(trial.validation) for trial in trials],
        "train": [_short(trial.train) for trial in trials],
        "epochs": [trial.epochs for trial in trials],
        "seconds": [_short(trial.seconds) for trial in trials],
        "weights": [trial.weights for trial in trials],
    }


def parameter_columns(
    trials: Sequence[TrialRecord], space: Mapping[str, Any], importances: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """The parameters that differ between trials, the most important first.

    Args:
        space: The study file's.

    Returns:
        For each its `name`, whether its axis is logarithmic (`log`) and its numbers are `whole`, its `choices` where it
        is not a number, and `values`: numbers, or places in `choices`; None for a trial that lacks it.
    """
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    columns = [_column(name, [trial.params.get(name) for trial in trials], space) for name in names]
    return sorted(
        (column for column in columns if column is not None),
        key=lambda column: -importances.get(column["name"], (0.0, 0.0))[0],
    )


def _column(name: str, values: Sequence[Any], space: Mapping[str, Any]) -> dict[str, Any] | None:
    there = [value for value in values if value is not None]
    distinct = dict.fromkeys(there)
    if len(distinct) < 2:
        return None
    given = space.get(re.sub(r"_\d+$", "", name))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if numbers and not isinstance(given, list):
        log = isinstance(given, Mapping) and bool(given.get("log")) and min(there) > 0
        whole = all(isinstance(value, int) for value in distinct)
        short = [_short(value) for value in values]
        return {"name": name, "log": log, "whole": whole, "choices": None, "values": short}
    order = sorted(distinct, key=None if numbers else str)
    places = {value: place for place, value in enumerate(order)}
    return {
        "name": name,
        "log": False,
        "whole": False,
        "choices": [_choice(value) for value in order],
        "values": [None if value is None else places[value] for value in values],
    }


def curve_columns(trials: Sequence[TrialRecord], epochs: Sequence[EpochRow]) -> dict[str, Any]:
    """The learning curves, one behind the other: `start[i]` to `start[i + 1]` are those of the i-th of `trials`, which
    are places in the trial columns. The best trials come first, and are all there are where there are too many."""
    rows: dict[int, list[EpochRow]] = {}
    for row in epochs:
        rows.setdefault(row.trial, []).append(row)
    places = {trial.number: place for place, trial in enumerate(trials)}
    ranked = sorted(
        (trial for trial in trials if trial.number in rows),
        key=lambda trial: math.inf if _short(trial.validation) is None else float(trial.validation or 0),
    )
    held: list[int] = []
    start, train, validation = [0], [], []
    for trial in ranked:
        curve = sorted(rows[trial.number], key=lambda row: row.epoch)
        if start[-1] + len(curve) > MOST_EPOCHS:
            break
        held.append(places[trial.number])
        train += [_short(row.train_metric) for row in curve]
        validation += [_short(row.validation_metric) for row in curve]
        start.append(start[-1] + len(curve))
    return {"trials": held, "start": start, "train": train, "validation": validation, "all": len(held) == len(ranked)}


def _short(value: float | None) -> float | None:
    """To five digits: a page has hundreds of thousands of numbers."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.5g}")


def _choice(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
