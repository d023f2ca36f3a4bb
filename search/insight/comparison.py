"""Two studies side by side: is the winner of one better than that of the other, by how much, how sure is it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from neurosweep.errors import BadInputError
from search.insight.findings import Level
from search.insight.levels import MOST_BOOTSTRAP_ROWS, Z, difference, level, row_losses
from search.insight.winner import load_winner, make_trainer, outputs_of, studied_data, winning_trial
from search.places import Places
from search.sampler import Stream, derived_seed
from storage.records import StudyRecord, TrialRecord
from storage.store import Store
from trainer.work import Metric, TestResult

Losses = npt.NDArray[np.float64]

SURE = 0.05
"""A p-value under which one is called better."""

DRAWS = 9999


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two studies.

    Attributes:
        name: Its own, whatever has been submitted since under the name that both may have.
        test: Its recorded test metric; None where its test split is shut.
    """

    name: str
    study: StudyRecord
    winner: TrialRecord
    test: Level | None
    trials: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of it.

    Attributes:
        better: The name of the better study; None where they can't be told apart.
        difference: The first winner's metric less the second's: below 0 the first is better.
        p_value: How often a difference as large as this would come about if there were none.
        paired: Whether both were held against the same rows.
        split: ``test`` or ``validation``.
        method: In words, with the name of the test.
        settings: What the two study files have differently: for each key the first's and the second's value.
        notes: What must be known beside the figures.
    """

    first: Side
    second: Side
    metric: str
    better: str | None
    difference: Level
    p_value: float
    paired: bool
    split: str
    method: str
    settings: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]


def compare(store: Store, places: Places, first: StudyRecord, second: StudyRecord) -> Comparison:
    """Holds the winners of two studies of the same data against each other.

    On the test split where both studies have opened it, else on the validation split. Where their splits are the same,
    row by row; each look at the test split is recorded.

    Raises:
        BadInputError: They are the same study, or their data or metrics differ, or one has no complete trial.
    """
    _check_alike(first, second)
    names = [study.label if first.name != second.name else f"{study.name}@{study.number}" for study in (first, second)]
    sides = [_side(store, study, name) for study, name in zip((first, second), names, strict=True)]
    split = "test" if all(side.test for side in sides) else "validation"
    metric = Metric(first.spec["metric"])
    seed = derived_seed(int(first.spec.get("seed", 0)), Stream.INSIGHT)
    notes = []
    if split == "validation":
        notes.append(
            "The test split is still sealed in one of them, so this is the validation split, by which both winners "
            "were chosen: the study with more trials has had more luck there."
        )
    same_rows = first.split_hash is not None and first.split_hash == second.split_hash
    if same_rows:
        results = [_outputs(store, places, side, split, sides[1 - at].name) for at, side in enumerate(sides)]
        same_rows = np.array_equal(results[0].truth, results[1].truth)
    if same_rows:
        found, p_value = paired_difference(metric, results[0], results[1], seed)
        test = "McNemar's exact test" if metric is Metric.ERROR else "a sign-flip test"
        method = f"on the same {len(results[0].truth):,} rows of the {split} split, row by row, by {test}"
    else:
        levels = [
            side.test or level(metric, _outputs(store, places, side, split, sides[1 - at].name), seed)
            for at, side in enumerate(sides)
        ]
        found, p_value = unpaired_difference(levels[0], levels[1])
        method = f"each on the {split} split of its own, by their intervals"
        notes.append(
            "Their splits are not the same rows, so part of the difference may be the rows'. With the same seed and "
            "data.split a comparison sees much smaller differences."
        )
    better = None
    if p_value < SURE and found.value != 0:
        better = names[0] if found.value < 0 else names[1]
    return Comparison(
        first=sides[0],
        second=sides[1],
        metric=str(metric),
        better=better,
        difference=found,
        p_value=p_value,
        paired=same_rows,
        split=split,
        method=method,
        settings=differing(first.spec, second.spec),
        notes=tuple(notes),
    )


def paired_difference(metric: Metric, one: TestResult, other: TestResult, seed: int) -> tuple[Level, float]:
    """``one - other`` of two networks on the same rows, with a 95 % interval and a p-value.

    For the error the interval is Newcombe's for paired shares (1998, Statistics in Medicine 17, p. 2635, method 10) and
    the test McNemar's exact one (Dietterich 1998, Neural Computation 10, p. 1895); for the balanced error the intervals
    of the classes are put together (Zou & Donner 2008, Statistics in Medicine 27, p. 1693); for other metrics it is the
    percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13). Their test flips the signs of the rows'
    differences (Edgington & Onghena 2007, Randomization Tests, ch. 6). With more than `MOST_BOOTSTRAP_ROWS` rows both
    are normal.

    Args:
        one: Its rows are those of `other`, in the same order.
    """
    losses = [row_losses(metric, result.truth, result.outputs) for result in (one, other)]
    if metric is Metric.ERROR:
        return _paired_shares(*losses), _mcnemar(*losses)
    gaps = losses[0] - losses[1]
    weights = np.full(len(gaps), 1 / len(gaps))
    if metric is Metric.BALANCED_ERROR:
        labels, places = np.unique(one.truth, return_inverse=True)
        weights = 1 / (np.bincount(places)[places] * len(labels))
        found = _mean([_paired_shares(losses[0][places == at], losses[1][places == at]) for at in range(len(labels))])
    else:
        found = _mean_gap(gaps, seed)
    return found, _sign_flips(gaps * weights, seed)


def unpaired_difference(one: Level, other: Level) -> tuple[Level, float]:
    """``one - other`` of levels with rows of their own (`levels.difference`), and the p-value at which its interval
    would just touch nought, as if it were normal."""
    found = difference(one, other)
    side = found.high - found.value if found.value < 0 else found.value - found.low
    if found.value == 0:
        return found, 1.0
    return found, float(2 * stats.norm.sf(Z * abs(found.value) / side)) if side > 0 else 0.0


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys of two study files, dotted, whose values differ; None for a value that one of them lacks."""
    flat = [_flat(spec) for spec in (first, second)]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    pairs = {key: (flat[0].get(key), flat[1].get(key)) for key in keys if key != "name"}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in spec.items():
        inner = {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, Mapping) else {key: value}
        found.update(inner)
    return found


def _check_alike(first: StudyRecord, second: StudyRecord) -> None:
    if first.id == second.id:
        raise BadInputError(f"Both names lead to the same study, {first.label}: name two.", second.label)
    specs = [first.spec, second.spec]
    for name, value in (
        ("metric", [spec.get("metric") for spec in specs]),
        ("data.source", [spec["data"]["source"] for spec in specs]),
        ("data.target", [spec["data"].get("target") for spec in specs]),
    ):
        if value[0] != value[1]:
            raise BadInputError(
                f"{first.label} has {name} {value[0] or 'by default'}, {second.label} has {value[1] or 'the default'}: "
                "only studies of the same data with the same metric can be compared.",
                name,
            )


def _side(store: Store, study: StudyRecord, name: str) -> Side:
    trials = store.trials(study.id)
    best = (study.result or {}).get("best") or {}
    test = None
    if best.get("test") is not None and best.get("test_interval"):
        low, high = best["test_interval"]
        test = Level(value=best["test"], low=low, high=high)
    return Side(name=name, study=study, winner=winning_trial(study, trials), test=test, trials=len(trials))


def _outputs(store: Store, places: Places, side: Side, split: str, other: str) -> TestResult:
    spec, dataset = studied_data(side.study)
    trainer = make_trainer(dataset)
    winner = load_winner(places, side.study, side.winner, spec, dataset, trainer=trainer)
    if split == "test":
        store.record_opening(side.study.id, side.winner.number, f"compare with {other}")
    rows = dataset.test if split == "test" else dataset.validation
    return outputs_of(winner, dataset, rows, Metric(spec.metric or Metric.ERROR), trainer=trainer)


def _mcnemar(one: Losses, other: Losses) -> float:
    """Of the rows that only one gets wrong, how far from half are the first's?"""
    first, second = int(((one > 0) & (other == 0)).sum()), int(((one == 0) & (other > 0)).sum())
    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def _paired_shares(one: Losses, other: Losses) -> Level:
    rows = len(one)
    both, first, second = one @ other, one @ (1 - other), (1 - one) @ other
    neither = rows - both - first - second
    shares = (one.mean(), other.mean())
    bounds = [stats.binomtest(int(each.sum()), rows).proportion_ci(0.95, method="wilson") for each in (one, other)]
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    together = float(both * neither - first * second)
    if together > 0:
        together = max(0.0, together - rows / 2)
    phi = together / math.sqrt(product) if product > 0 else 0.0
    below, above = shares[0] - bounds[0].low, bounds[1].high - shares[1]
    low = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    below, above = shares[1] - bounds[1].low, bounds[0].high - shares[0]
    high = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    value = float(shares[0] - shares[1])
    return Level(value=value, low=value - low, high=value + high)


def _mean(parts: list[Level]) -> Level:
    value = float(np.mean([part.value for part in parts]))
    low = float(np.linalg.norm([part.value - part.low for part in parts])) / len(parts)
    high = float(np.linalg.norm([part.high - part.value for part in parts])) / len(parts)
    return Level(value=value, low=value - low, high=value + high)


def _mean_gap(gaps: Losses, seed: int) -> Level:
    value, rows = float(gaps.mean()), len(gaps)
    if rows > MOST_BOOTSTRAP_ROWS:
        half = Z * float(gaps.std(ddof=1)) / math.sqrt(rows)
        return Level(value=value, low=value - half, high=value + half)
    random = np.random.default_rng(seed)
    draws = [gaps[random.integers(0, rows, rows)].mean() for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Level(value=value, low=float(low), high=float(high))


def _sign_flips(gaps: Losses, seed: int) -> float:
    """The share of random signs that make a sum of the rows' gaps as far from nought."""
    gaps = gaps[gaps != 0]
    if len(gaps) == 0:
        return 1.0
    if len(gaps) > MOST_BOOTSTRAP_ROWS:
        return float(2 * stats.norm.sf(abs(gaps.sum()) / np.linalg.norm(gaps)))
    found = stats.permutation_test(
        (gaps,), np.sum, permutation_type="samples", n_resamples=DRAWS, rng=np.random.default_rng(seed), batch=200
    )
    return float(found.pvalue)
