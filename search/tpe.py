"""A tree-structured Parzen estimator that does not slow down.

The method is that of Bergstra et al. 2011 (NIPS 24), and the constants are those of Optuna's
`TPESampler(multivariate=False)`: the best tenth of the trials, 25 at most, are the good ones and all others the bad
ones; of 24 values drawn from the density of the good ones, for each parameter by itself, the one that is likeliest
under them and unlikeliest under the bad ones is proposed. It differs in how that is worked out:

- Trials are told to it one by one and never read again. A trial that ends finds its place among the ranked ones, and
  moves at most two others between the good and the bad ones.
- A density is a table over the cells of a parameter (`search.parzen`). That of the good trials is made anew when they
  change, that of the bad ones after each trial that ends; all proposals until then use it. A trial that was proposed
  meanwhile counts as a bad one at once: its kernel is added to the table, so that proposals of one moment spread.
- The weight of an old bad trial falls with its number, where Optuna counts its rank among those with the parameter.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.parzen import Counts, Floats, Scale, scale_of

STARTUP = 10
"""Trials that have to be complete or pruned before anything is learned of them; until then values are random."""

CANDIDATES = 24
"""Values that are drawn from the density of the good trials, to propose one of them."""

MANY_COMING = 32
"""From so many running trials on, one product is quicker than a sum for each; and as exact, as kernels are rounded."""

MOST_GOOD = 25
"""The most good trials."""

FRESH = 25
"""Bad trials that count fully, the newest ones; others count the less, the older they are."""

Rank = tuple[int, float, float, int]


class TreeParzen(BaseSampler):
    """Proposes one parameter at a time, from the trials that have it. Smaller values are better.

    It knows the trials that it drew values for and those that it was shown by `learn`. A trial counts as running once
    it is shown, or once the next one begins, and until it ends. One that failed is forgotten, unless it was too large.

    Args:
        seed_of: The seed of a trial, by its number, below 2**64: all draws of the trial come from it.
    """

    def __init__(self, seed_of: Callable[[int], int]) -> None:
        self._seed_of = seed_of
        self._parameters: dict[str, _Parameter] = {}
        self._running: dict[int, dict[str, int]] = {}
        self._ended: dict[int, dict[str, int]] = {}
        self._too_large: set[int] = set()
        self._ranks: list[Rank] = []
        self._good = 0
        self._newest = 0
        self._before = 0
        self._number = -1
        self._rng = np.random.default_rng(0)
        self._drawn: dict[str, int] = {}

    def start_from(self, trials: Sequence[FrozenTrial]) -> None:
        """Takes in trials of another study, before any of its own: they count as the oldest ones.

        Args:
            trials: All of them have ended; their numbers don't matter.
        """
        for trial in trials:
            self._see(self._before, trial)
            self._end(self._before, trial, trial.state, trial.value)
            self._before += 1

    def too_large(self, number: int) -> None:
        """A trial that has not ended yet will fail, as it does not fit: that makes it a bad one. It gets no rank, so
        that it never becomes a good one, however few others there are."""
        self._too_large.add(self._before + number)

    def learn(self, trial: FrozenTrial) -> None:
        """Takes in a trial as it stands, running or ended, whoever chose its values."""
        number = self._before + trial.number
        self._see(number, trial)
        if trial.state.is_finished():
            self._end(number, trial, trial.state, trial.value)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Takes in a trial that ends."""
        number = self._before + trial.number
        self._see(number, trial)
        self._end(number, trial, state, values[0] if values else None)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of one parameter."""
        if self._before + trial.number != self._number:
            self._begin(self._before + trial.number)
        parameter = self._parameter(param_name, param_distribution)
        if len(self._ranks) < STARTUP:
            place = self._rng.random() * parameter.scale.cells
            cell = int(place)
            within = place - cell
        else:
            draws = self._rng.random(CANDIDATES + 1)
            cell, within = parameter.draw(self._newest, draws[:-1]), float(draws[-1])
        self._drawn[param_name] = cell
        return param_distribution.to_external_repr(parameter.scale.value(cell, within))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: each parameter is drawn by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None: each parameter is drawn by itself."""
        return {}

    def _begin(self, number: int) -> None:
        """Makes a running trial of the one that was proposed last, and turns to the next."""
        if self._drawn:
            self._run(self._number, self._drawn)
        self._number, self._drawn = number, {}
        self._rng = np.random.default_rng(self._seed_of(number - self._before))

    def _see(self, number: int, trial: FrozenTrial) -> None:
        """Makes a running trial of one that is not known yet."""
        if number == self._number:
            self._number, self._drawn = -1, {}
        if number not in self._running:
            cells = {
                name: self._parameter(name, trial.distributions[name]).scale.cell(
                    trial.distributions[name].to_internal_repr(value)
                )
                for name, value in trial.params.items()
            }
            self._run(number, cells)

    def _run(self, number: int, cells: dict[str, int]) -> None:
        self._running[number] = cells
        for name, cell in cells.items():
            self._parameters[name].run(number, cell)

    def _end(self, number: int, trial: FrozenTrial, state: TrialState, value: float | None) -> None:
        cells = self._running.pop(number)
        for name in cells:
            del self._parameters[name].running[number]
        for parameter in self._parameters.values():
            parameter.an_end()
        too_large = number in self._too_large
        if state not in (TrialState.COMPLETE, TrialState.PRUNED) and not too_large:
            return
        self._newest = max(self._newest, number)
        self._ended[number] = cells
        if too_large:
            self._put(number, good=False)
            return
        rank = _rank(number, trial, state, value)
        place = bisect_left(self._ranks, rank)
        insort(self._ranks, rank)
        good = place < self._good
        self._put(number, good)
        if good:
            self._move(self._ranks[self._good][-1], good=False)
        if min(math.ceil(0.1 * len(self._ranks)), MOST_GOOD) > self._good:
            self._good += 1
            self._move(self._ranks[self._good - 1][-1], good=True)

    def _put(self, number: int, good: bool) -> None:
        for name, cell in self._ended[number].items():
            self._parameters[name].add(number, cell, good)

    def _move(self, number: int, good: bool) -> None:
        for name, cell in self._ended[number].items():
            self._parameters[name].remove(number, cell, not good)
        self._put(number, good)

    def _parameter(self, name: str, distribution: BaseDistribution) -> _Parameter:
        parameter = self._parameters.get(name)
        if parameter is None:
            parameter = self._parameters[name] = _Parameter(scale_of(distribution))
        return parameter


def _rank(number: int, trial: FrozenTrial, state: TrialState, value: float | None) -> Rank:
    """Where a trial stands: complete ones by value, after them pruned ones, by how far they came and by their value
    there, after them pruned ones without any value; of equal ones the earlier is better."""
    if state is TrialState.COMPLETE and value is not None:
        return 0, 0.0, value, number
    if not trial.intermediate_values:
        return 1, 1.0, 0.0, number
    step, value = max(trial.intermediate_values.items())
    return 1, -float(step), math.inf if math.isnan(value) else value, number


class _Side:
    """One parameter's values in the good or in the bad trials."""

    def __init__(self, cells: int) -> None:
        self.places: dict[int, int] = {}
        self.counts: Counts = np.zeros(cells, dtype=np.int64)
        # Sums of the trials' numbers, counted from 1: whole numbers, which are the same in whatever order they come.
        self._ages: Counts = np.zeros(cells, dtype=np.int64)

    def add(self, number: int, cell: int) -> None:
        self.places[number] = cell
        self.counts[cell] += 1
        self._ages[cell] += number + 1

    def remove(self, number: int, cell: int) -> None:
        del self.places[number]
        self.counts[cell] -= 1
        self._ages[cell] -= number + 1

    def weights(self, newest: int) -> Floats:
        """(cells,) sums of weights: 1 for each of the newest `FRESH` trials, falling to 0 for the study's first."""
        fresh = newest + 1 - FRESH
        if fresh <= 0:
            return self.counts.astype(float)
        weights = self._ages / fresh
        if fresh > 20 * FRESH:
            return weights  # which is less than a twentieth too much for the newest
        for number in range(fresh, newest + 1):
            cell = self.places.get(number)
            if cell is not None:
                weights[cell] += 1 - (number + 1) / fresh
        return weights


class _Parameter:
    """What is known of one parameter, and its densities, which are made where they are needed. Their sums differ.

    Attributes:
        good, bad: Its values in the good and in the bad trials.
        running: Its cells in the running ones, by number; they count as bad.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.good, self.bad = _Side(scale.cells), _Side(scale.cells)
        self.running: dict[int, int] = {}
        self._density: Floats | None = None
        self._reached: Floats = np.zeros(0)
        self._against: _Against | None = None

    def add(self, number: int, cell: int, good: bool) -> None:
        """Takes in a value of a trial that has ended."""
        (self.good if good else self.bad).add(number, cell)
        self._density = None if good else self._density

    def remove(self, number: int, cell: int, good: bool) -> None:
        """Takes it out again."""
        (self.good if good else self.bad).remove(number, cell)
        self._density = None if good else self._density

    def run(self, number: int, cell: int) -> None:
        """Takes in a value of a running trial."""
        self.running[number] = cell
        if self._against is not None:
            self._against.coming.append(cell)

    def an_end(self) -> None:
        """After any trial has ended, as the weights of all bad ones change with that."""
        self._against = None

    def draw(self, newest: int, quantiles: Floats) -> int:
        """The cell of the best candidate.

        Args:
            newest: The number of the newest trial that has ended.
            quantiles: (candidates,) where the candidates stand in the density of the good trials.
        """
        if self._density is None:
            self._density = self.scale.density(self.good.counts, self.good.counts.astype(float))
            reached = np.cumsum(self._density)
            self._reached = reached / reached[-1]
        if self._against is None:
            bad = self.scale.density(self.bad.counts, self.bad.weights(newest))
            self._against = _Against(bad, coming=list(self.running.values()))
        if self._against.coming:
            self._against.take_in(self.scale, self.bad.counts)
        cells = self._reached.searchsorted(quantiles, side="right")
        return int(cells[(self._density[cells] / self._against.density[cells]).argmax()])


class _Against:
    """The density of the bad trials with that of the running ones.

    Args:
        bad: (cells,) masses of the bad trials.
        coming: Cells of running trials, until they are taken in.

    Attributes:
        density: (cells,) masses of all that were taken in.
    """

    def __init__(self, bad: Floats, coming: list[int]) -> None:
        self.coming = coming
        self.density = self._bad = bad
        self._running: Floats = np.zeros(bad.size)
        self._kernels: Floats | None = None

    def take_in(self, scale: Scale, counts: Counts) -> None:
        """Adds the kernels of those that are coming, as they are beside the bad trials that are counted."""
        if self._kernels is None:
            # Rounded, so that their sum is exact: the same in whatever order the trials became known.
            self._kernels = np.rint(scale.kernels(counts) * 2.0**40) / 2.0**40
        if len(self.coming) > MANY_COMING:
            self._running += np.bincount(self.coming, minlength=len(self._kernels)) @ self._kernels
        else:
            for cell in self.coming:
                self._running += self._kernels[cell]
        self.coming.clear()
        self.density = self._bad + self._running
