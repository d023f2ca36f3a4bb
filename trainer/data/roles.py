"""Which column has which part: the target, the inputs, the group, the split column."""

from __future__ import annotations

from dataclasses import dataclass

from neurosweep.errors import DataError
from trainer.data.dataset import DataRequest
from trainer.data.sources import ANSWERS, Source
from trainer.data.words import about, listed, quoted, unknown_column

TARGET_NAMES = ("target", "label", "class", ANSWERS)
"""The first of these that is a column is the target of a study that names none."""

KEYS = {"target": "data.target", "group": "data.group", "the split column": "data.split"}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Names of columns.

    Attributes:
        features: The raw columns to learn from, in order; empty for images.
        split: The column that says train, validation or test.
    """

    target: str
    features: tuple[str, ...]
    group: str | None
    split: str | None


def choose_roles(source: Source, request: DataRequest) -> Roles:
    """The columns that the study names, and its defaults.

    Raises:
        DataError: There is no such column, or one has two parts.
    """
    target = request.target or next((name for name in TARGET_NAMES if name in source.names), None)
    if target is None:
        raise DataError(f"target must say which column to predict: there are {listed(source.names)}", source.where)
    given = {"target": target, "group": request.group, "the split column": request.split_column}
    used = {role: name for role, name in given.items() if name is not None}
    for role, name in used.items():
        if name not in source.names:
            with about(KEYS[role]):
                raise unknown_column(role, name, source.names, source.where)
    if len(set(used.values())) < len(used):
        told = ", ".join(f"{role} is {quoted(name)}" for role, name in used.items())
        raise DataError(f"{' and '.join(used)} must be different columns, but {told}", source.where)
    with about("data.features"):
        features = () if source.images else _features(source, request, used)
        if source.images and request.features not in (None, (source.pictured,)):
            raise DataError("features chooses columns of a table, but this data is images: leave it out", source.where)
    return Roles(target=target, features=features, group=request.group, split=request.split_column)


def _features(source: Source, request: DataRequest, used: dict[str, str]) -> tuple[str, ...]:
    """The columns to learn from: those the study names, or the source's inputs that have no other part."""
    if request.features is None:
        names = source.names if source.inputs is None else source.inputs
        rest = tuple(name for name in names if name not in used.values())
        if not rest:
            raise DataError(
                f"there must be a column to learn from, but all there is is {listed(source.names)}", source.where
            )
        return rest
    for name in request.features:
        if name not in source.names:
            raise unknown_column("each of features", name, source.names, source.where)
        if name in (used["target"], request.split_column):
            raise DataError(
                f"features must not have {quoted(name)}, which gives the answer away: leave it out", source.where
            )
    return request.features
