"""Which trials go on: successive halving, Hyperband and the median rule, for packs of trials that report together.

A trial is looked at after certain epochs only (`Pruner.looks`); in between it trains undisturbed, a segment. All trials
of a pack that come to a look together are entered before any of them is judged, so that they are compared with each
other: judged one by one, the first to arrive would always go on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from search.spec import PrunerKind, StudySpec

REDUCTION = 3
"""Of so many trials that reach a rung, one goes on."""

RUNGS = 3
"""Looks of successive halving at a trial that is trained to its end."""

MEDIAN_LOOKS = 10
"""Looks of the median rule at such a trial, one of them at its end, where nothing is left to save."""

MEDIAN_STARTUP = 5
"""Complete trials that the median rule needs before it judges."""

Curve = Mapping[int, float]
"""A trial's validation metric by epoch, counted from 1; smaller is better."""


class Pruner(Protocol):
    """Judges trials by their curves. What is asked grows with no more than the logarithm of the study.

    Attributes:
        looks: The epochs after which a trial has to be shown, ascending; the last is the trial's end, which leaves
            nothing to decide.
    """

    looks: tuple[int, ...]

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        """The trials that end here. They are given by number, with their curves up to the look that each has reached;
        one is shown once for each of its looks."""
        ...

    def complete(self, curve: Curve) -> None:
        """Takes in a trial that was trained to its end here."""
        ...

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        """Takes in a trial that ended with an earlier dispatcher."""
        ...


def make_pruner(spec: StudySpec) -> Pruner:
    """The pruner of a study.

    - asha: asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) with reduction factor 3 and rungs near
      1/27, 1/9 and 1/3 of the epochs, so that a trial in the top third at the last of them is trained to its end.
    - hyperband: (Li et al. 2018, JMLR 18:185) successive halving in several brackets, from the earliest first rung to
      one near the end, for metrics whose early epochs say little.
    - median: at each tenth of the epochs, a trial ends whose best value so far is worse than the median of the complete
      trials' values at that epoch, once there are five of them.
    """
    epochs = spec.budget.epochs
    match spec.search.pruner:
        case PrunerKind.ASHA:
            # Rounded up, so that the last rung is not close to the end, where a look costs much and saves little.
            return SuccessiveHalving(epochs, rungs(-(-epochs // REDUCTION**RUNGS), epochs))
        case PrunerKind.HYPERBAND:
            # Rounded down, so that the last bracket is close to the end.
            return Hyperband(epochs, rungs(max(1, epochs // REDUCTION**RUNGS), epochs))
        case PrunerKind.MEDIAN:
            interval = max(1, epochs // MEDIAN_LOOKS)
            return MedianRule((*range(interval, epochs, interval), epochs))
        case PrunerKind.NONE:
            return NoPruner((epochs,))


def rungs(first: int, epochs: int) -> tuple[int, ...]:
    """Epochs from the first rung on, each `REDUCTION` times the one before, under the trial's end."""
    found = []
    while first < epochs:
        found.append(first)
        first *= REDUCTION
    return tuple(found)


class NoPruner:
    """Nobody ends early."""

    def __init__(self, looks: tuple[int, ...]) -> None:
        self.looks = looks

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        return set()

    def complete(self, curve: Curve) -> None:
        pass

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        pass


class SuccessiveHalving:
    """At each rung the best third of all trials that have come to it go on, at least one.

    Args:
        rungs: Epochs of the looks before the end.
    """

    def __init__(self, epochs: int, rungs: Sequence[int]) -> None:
        self.looks = (*rungs, epochs)
        self._reached: dict[int, list[float]] = {rung: [] for rung in rungs}

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        at = {trial: max(curve) for trial, curve in curves.items()}
        for trial, curve in curves.items():
            if at[trial] in self._reached:
                insort(self._reached[at[trial]], curve[at[trial]])
        return {trial for trial, curve in curves.items() if not self._among_the_best(at[trial], curve[at[trial]])}

    def complete(self, curve: Curve) -> None:
        pass

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        for rung, values in self._reached.items():
            if rung in curve:
                insort(values, curve[rung])

    def _among_the_best(self, rung: int, value: float) -> bool:
        values = self._reached.get(rung)
        return values is None or bisect_left(values, value) < max(1, len(values) // REDUCTION)


class Hyperband:
    """A bracket of successive halving for each rung to begin with; trials are dealt out among them.

    Bracket s leaves out the first s rungs and gets as many trials as give each bracket about the same number of epochs:
    trial n goes where the golden-ratio sequence n * 0.618... mod 1 falls among the brackets' shares.
    """

    def __init__(self, epochs: int, rungs: Sequence[int]) -> None:
        self.looks = (*rungs, epochs)
        self._brackets = [SuccessiveHalving(epochs, rungs[first:]) for first in range(len(rungs) + 1)]
        count = len(self._brackets)
        # Li et al. (2018), algorithm 1, line 2: n = ceil(B / R * eta^s / (s + 1)), for s = most rungs ... 0.
        sizes = [REDUCTION**s / (s + 1) for s in reversed(range(count))]
        self._bounds = [sum(sizes[: index + 1]) / sum(sizes) for index in range(count)]

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        dealt: dict[int, dict[int, Curve]] = defaultdict(dict)
        for trial, curve in curves.items():
            dealt[self._bracket(trial)][trial] = curve
        return {trial for bracket, own in dealt.items() for trial in self._brackets[bracket].judge(own)}

    def complete(self, curve: Curve) -> None:
        pass

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        self._brackets[self._bracket(trial)].restore(trial, curve, complete=complete)

    def _bracket(self, trial: int) -> int:
        return next(index for index, bound in enumerate(self._bounds) if trial * 0.6180339887498949 % 1 <= bound)


class MedianRule:
    """Ends a trial whose best value so far is worse than the median of the complete trials' values at that epoch."""

    def __init__(self, looks: tuple[int, ...]) -> None:
        self.looks = looks
        self._complete: dict[int, list[float]] = {look: [] for look in looks}

    def judge(self, curves: Mapping[int, Curve]) -> set[int]:
        return {trial for trial, curve in curves.items() if min(curve.values()) > self._bar(max(curve))}

    def complete(self, curve: Curve) -> None:
        for look, values in self._complete.items():
            if look in curve:
                insort(values, curve[look])

    def restore(self, trial: int, curve: Curve, *, complete: bool) -> None:
        if complete:
            self.complete(curve)

    def _bar(self, look: int) -> float:
        values = self._complete.get(look, [])
        return _middle(values) if len(values) >= MEDIAN_STARTUP else float("inf")


def _middle(values: Sequence[float]) -> float:
    """The median of sorted values."""
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
