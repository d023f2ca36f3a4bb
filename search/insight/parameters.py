"""A trial's parameters and what the study file says of them."""

from __future__ import annotations

import re

from search.dimensions import Choice, Fixed, Range
from search.spec import StudySpec

LAYERED = re.compile(r"(neurons|filters|filter_size|stride|pool)_\d+")


def key_of(param: str) -> str:
    """The study file's key of a parameter: ``neurons`` for ``neurons_2``."""
    layered = LAYERED.fullmatch(param)
    return layered.group(1) if layered else param


def dimension_of(spec: StudySpec, param: str) -> Fixed | Choice | Range:
    """How a parameter is searched."""
    if param == "model":
        names = tuple(family.value for family in spec.model)
        return Choice(values=names) if len(names) > 1 else Fixed(value=names[0])
    dimension: Fixed | Choice | Range = getattr(spec.space, key_of(param))
    return dimension
