"""Regions of the space that never work, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.dimensions import Fixed
from search.parameters import dimension_of
from search.spec import StudySpec
from storage.records import TrialRecord, TrialState
from trainer.work import OUT_OF_MEMORY

LEAST = 8
"""Trials that a region must have for anything to be said of it."""

BAD = 0.95
"""Share of them that must have failed or ended near chance."""

NEAR_CHANCE = 0.9
DEPTH = 3

Values = npt.NDArray[np.float64]


def barren_regions(spec: StudySpec, trials: Sequence[TrialRecord], *, chance: float) -> tuple[str, ...]:
    """Such as ``learning_rate over 0.12 and optimizer sgd: 14 of 14 trials failed or ended near chance``.

    A shallow decision tree parts the trials that failed, or reached less than a tenth under chance, from the others;
    leaves of nearly only such are told. Numbers that a trial lacks (the third layer's neurons) part nothing.

    Args:
        chance: The metric of the best constant guess.
    """
    from sklearn.tree import DecisionTreeClassifier

    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING and _known(trial)]
    bad = np.array([_bad(trial, chance) for trial in ended], bool)
    columns = _columns(spec, ended)
    if not columns or not bad.any() or bad.all():
        return ()
    inputs = np.column_stack([values for _, _, values in columns])
    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAST, random_state=0)
    if len(ended) < 2 * LEAST:
        return ()
    tree.fit(inputs, bad)
    leaves = tree.apply(inputs)
    found = []
    for leaf in np.unique(leaves):
        inside = bad[leaves == leaf]
        if inside.mean() >= BAD:
            rules = _rules(tree.tree_, int(leaf), columns)
            found.append((int(inside.sum()), len(inside), rules))
    found.sort(key=lambda each: -each[0])
    return tuple(f"{rules}: {hits} of {size} trials failed or ended near chance" for hits, size, rules in found)


def _known(trial: TrialRecord) -> bool:
    """A trial that ran out of memory says something of the machine, not of how well it learns."""
    failed = trial.state is TrialState.FAILED
    return trial.validation is not None or (failed and not (trial.error or "").startswith(OUT_OF_MEMORY))


def _bad(trial: TrialRecord, chance: float) -> bool:
    if trial.state is TrialState.FAILED or trial.validation is None or not math.isfinite(trial.validation):
        return True
    return trial.validation >= NEAR_CHANCE * chance


def _columns(spec: StudySpec, trials: Sequence[TrialRecord]) -> list[tuple[str, Any, Values]]:
    """Searched parameters that all trials have, as (name, word, values): numbers as they are with no word, and for each
    word of a choice whether it was taken."""
    if not trials:
        return []
    common = set.intersection(*(set(trial.params) for trial in trials))
    columns: list[tuple[str, Any, Values]] = []
    for name in (name for name in trials[0].params if name in common):
        if isinstance(dimension_of(spec, name), Fixed):
            continue
        values = [trial.params[name] for trial in trials]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            columns.append((name, None, np.asarray(values, np.float64)))
        else:
            words = sorted(set(values), key=str)
            columns += [(name, word, np.array([value == word for value in values], np.float64)) for word in words]
    return columns


def _rules(tree: Any, leaf: int, columns: Sequence[tuple[str, Any, Values]]) -> str:
    """The way from the root to a leaf, in words; the tightest bound of each number."""
    above: dict[str, float] = {}
    under: dict[str, float] = {}
    words: list[str] = []
    for node, right in _way(tree, leaf):
        name, word, values = columns[tree.feature[node]]
        if word is not None:
            words.append(f"{name} {'' if right else 'not '}{_word(word)}")
        elif right:
            above[name] = max(above.get(name, -math.inf), _last(values, tree.threshold[node]))
        else:
            under[name] = min(under.get(name, math.inf), _first(values, tree.threshold[node]))
    numbers = [
        f"{name} between {above[name]:.3g} and {under[name]:.3g}"
        if name in above and name in under
        else f"{name} over {above[name]:.3g}"
        if name in above
        else f"{name} under {under[name]:.3g}"
        for name in sorted({*above, *under})
    ]
    return " and ".join([*numbers, *words])


def _last(values: Values, threshold: float) -> float:
    """The largest tried value at or under a threshold: the region begins behind it."""
    return float(values[values <= threshold].max())


def _first(values: Values, threshold: float) -> float:
    """The smallest tried value over a threshold: the region ends before it."""
    return float(values[values > threshold].min())


def _word(word: Any) -> str:
    return {True: "on", False: "off"}[word] if isinstance(word, bool) else str(word)


def _way(tree: Any, leaf: int) -> list[tuple[int, bool]]:
    """The inner nodes on the way to a leaf, each with whether it goes right (over the threshold)."""
    parents = {int(child): (node, False) for node, child in enumerate(tree.children_left) if child >= 0}
    parents |= {int(child): (node, True) for node, child in enumerate(tree.children_right) if child >= 0}
    way, node = [], leaf
    while node in parents:
        node, right = parents[node]
        way.append((node, right))
    return way[::-1]
