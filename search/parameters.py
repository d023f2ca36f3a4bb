"""A trial's parameters and what the study file says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from search.dimensions import Choice, Fixed, Range
from search.spec import StudySpec
from storage.records import TrialRecord

OF_EACH_LAYER = ("neurons", "filters", "filter_size", "stride", "pool")
"""Keys that hold for each layer by itself."""


def key_of(param: str) -> str:
    """The study file's key of a parameter: ``neurons`` for ``neurons_2``."""
    key, _, number = param.rpartition("_")
    return key if key in OF_EACH_LAYER and re.fullmatch(r"[1-9]\d{0,2}", number) else param


def dimension_of(spec: StudySpec, param: str) -> Fixed | Choice | Range:
    """How a parameter is searched."""
    if param == "model":
        names = tuple(family.value for family in spec.model)
        return Choice(values=names) if len(names) > 1 else Fixed(value=names[0])
    dimension: Fixed | Choice | Range = getattr(spec.space, key_of(param))
    return dimension


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_of(trial: TrialRecord, key: str) -> Iterator[float]:
    """What a trial has of a number, for each layer where each has its own."""
    return (float(value) for param, value in trial.params.items() if key_of(param) == key and is_number(value))


def largest(trial: TrialRecord, key: str) -> float | None:
    """Of a number that each layer has, the largest; None where the trial has none."""
    return max(numbers_of(trial, key), default=None)
