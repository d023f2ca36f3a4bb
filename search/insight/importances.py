"""Which parameters matter, and which matter together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from search.dimensions import Choice, Fixed, Range
from search.parameters import dimension_of
from search.sampler import quiet_optuna
from search.spec import StudySpec
from storage.records import TrialRecord, TrialState

LEAST = 20
"""Trials under which importances would be noise."""

REPETITIONS = 6
MOST_DRAWN = 400
"""Trials of one repetition: Optuna copies each of them, which takes a millisecond."""

MOST_LEARNT = 1_000
"""Trials that the forest learns from, the last ones."""

LEAST_FOR_PAIRS = 50
PAIRED = 6
"""Parameters among which pairs are looked for: the most important ones."""

POINTS = 60
EXPLAINED = 0.3
"""A forest that explains less of the values than this (out of bag) says nothing of pairs."""

NOTEWORTHY = 0.05
"""Share of the variance from which on a pair is told."""

Values = npt.NDArray[np.float64]


def importances(spec: StudySpec, trials: Sequence[TrialRecord], seed: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each parameter's share over bootstrap samples of the trials, the largest first.

    PED-ANOVA (Watanabe et al. 2023, IJCAI), Optuna's, with its extension to parameters that only some trials have: how
    much a parameter decides whether a trial is among the best tenth. Pruned trials count with the best that they
    reached.
    """
    usable = _usable(trials)
    if len(usable) < LEAST or len({trial.validation for trial in usable}) < 2:
        return {}
    quiet_optuna()
    random, shares = np.random.default_rng(seed), []
    for _ in range(REPETITIONS):
        drawn = random.integers(0, len(usable), min(len(usable), MOST_DRAWN))
        shares.append(_shares([_frozen(spec, usable[place]) for place in drawn]))
    names = sorted({name for each in shares for name in each})
    table = np.array([[each.get(name, 0.0) for name in names] for each in shares])
    table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    found = {name: (float(table[:, at].mean()), float(table[:, at].std(ddof=1))) for at, name in enumerate(names)}
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _usable(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that have a figure."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        trial
        for trial in trials
        if trial.state in ended and trial.validation is not None and math.isfinite(trial.validation)
    ]


def _shares(trials: list[FrozenTrial]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of samples in which the best tenth is all of them
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study()
        study.add_trials(trials)
        return PedAnovaImportanceEvaluator().evaluate(study)


def _frozen(spec: StudySpec, trial: TrialRecord) -> FrozenTrial:
    """As Optuna knows it; values that were repaired to something that the space does not have are left out."""
    params, distributions = {}, {}
    for name, value in trial.params.items():
        distribution = distribution_of(dimension_of(spec, name))
        if distribution is not None and _contains(distribution, value):
            params[name], distributions[name] = value, distribution
    return create_trial(value=trial.validation, params=params, distributions=distributions)


def distribution_of(dimension: Fixed | Choice | Range) -> BaseDistribution | None:
    """Optuna's; None for what is fixed."""
    if isinstance(dimension, Fixed):
        return None
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def interactions(spec: StudySpec, trials: Sequence[TrialRecord], seed: int) -> tuple[tuple[str, str, float], ...]:
    """Pairs of parameters whose joint effect is not the sum of their single ones, with their share of the variance.

    A random forest learns the trials' ranks; of a pair of parameters, what its partial dependence has beyond those of
    the two (Friedman & Popescu 2008, Annals of Applied Statistics 2, p. 916) is set against the variance of all that
    the forest says. Only parameters that all trials have, and only where the forest explains something.
    """
    from sklearn.ensemble import RandomForestRegressor

    usable = _usable(trials)[-MOST_LEARNT:]
    names = [name for name in _shared(usable) if not isinstance(dimension_of(spec, name), Fixed)]
    if len(usable) < LEAST_FOR_PAIRS or len(names) < 2:
        return ()
    inputs = np.column_stack([_coded([trial.params[name] for trial in usable]) for name in names])
    values = np.array([trial.validation for trial in usable], np.float64)
    ranks = np.argsort(np.argsort(values, kind="stable")) / len(usable)
    forest = RandomForestRegressor(40, min_samples_leaf=3, oob_score=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that some trial was in every tree
        forest.fit(inputs, ranks)
    if forest.oob_score_ < EXPLAINED:
        return ()
    chosen = np.argsort(-forest.feature_importances_, kind="stable")[:PAIRED]
    points = inputs[np.random.default_rng(seed).choice(len(inputs), min(POINTS, len(inputs)), replace=False)]
    spread = float(forest.predict(inputs).var())
    single = {at: _dependence(forest, points, (at,)) for at in map(int, chosen)}
    found = []
    for one, other in combinations(single, 2):
        beyond = _dependence(forest, points, (one, other)) - single[one] - single[other]
        share = float(beyond.var()) / spread
        if share >= NOTEWORTHY:
            found.append((names[one], names[other], share))
    return tuple(sorted(found, key=lambda each: -each[2]))


def _dependence(forest: Any, points: Values, columns: tuple[int, ...]) -> Values:
    """What the forest says at each point's values of some columns, averaged over the other columns of all points."""
    count = len(points)
    asked = np.tile(points, (count, 1))
    for column in columns:
        asked[:, column] = np.repeat(points[:, column], count)
    return np.asarray(forest.predict(asked).reshape(count, count).mean(axis=1))


def _shared(trials: Sequence[TrialRecord]) -> list[str]:
    if not trials:
        return []
    common = set.intersection(*(set(trial.params) for trial in trials))
    return [name for name in trials[0].params if name in common]


def _coded(values: Sequence[Any]) -> Values:
    """Numbers as they are (a forest sees their order only), words by their order."""
    if all(isinstance(value, int | float) for value in values):
        return np.asarray(values, np.float64)
    places = {word: place for place, word in enumerate(sorted(set(map(str, values))))}
    return np.array([places[str(value)] for value in values], np.float64)
