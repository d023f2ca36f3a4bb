"""Parzen estimators on cells: the densities that a tree-structured Parzen estimator compares, as short tables.

The range of a number is cut into at most `CELLS` cells of equal width (on the logarithmic scale where the distribution
is logarithmic); each value of a stepped range of up to so many values is a cell of its own, and so is each choice of a
categorical parameter. A density is a table of the mass in each cell, and an observation counts by its cell alone. So a
table costs the same however many observations there are, where a sum over all of them, as in Bergstra et al. 2011
(NIPS 24), grows with the study.

Kernels, bandwidths and priors are those of Optuna's `TPESampler(multivariate=False)`: truncated normal kernels, as wide
as the larger distance to the next observation on either side, but no narrower than a hundredth of the range, and
wider where there are few; and a prior as wide as the range.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CELLS = 100
"""A cell is no wider than the narrowest bandwidth."""

NARROWEST, LADDER = 0.1, 1.05
"""Bandwidths in cells are rounded to `NARROWEST` times a power of `LADDER`: below a tenth of a cell, a kernel has all
of its mass in its own cell anyway; steps of a twentieth leave 143 bandwidths, whose kernels are worked out once."""

_WIDTHS = NARROWEST * LADDER ** np.arange(math.ceil(math.log(CELLS / NARROWEST) / math.log(LADDER)) + 1)


class Scale(Protocol):
    """The values of one parameter, laid out in cells. Values are in Optuna's internal representation.

    Attributes:
        cells: How many there are.
    """

    cells: int

    def cell(self, value: float) -> int:
        """The cell that a value is in, from 0."""

    def value(self, cell: int, within: float) -> float:
        """The value at a place in a cell, where `within` goes from 0 to 1."""

    def density(self, counts: Counts, weights: Floats) -> Floats:
        """The prior, of mass 1, and a kernel for each observation, of the mass of its weight.

        Args:
            counts: (cells,) observations in each cell.
            weights: (cells,) sums of their weights.

        Returns:
            (cells,) masses; their sum is 1 + the sum of the weights.
        """

    def kernels(self, counts: Counts) -> Floats:
        """The kernel of one more observation beside those that are counted, wherever it is.

        Args:
            counts: (cells,) observations in each cell.

        Returns:
            (cells, cells) masses, of sum 1 in each row; a row for each cell that the further observation may be in.
        """


def scale_of(distribution: BaseDistribution) -> Scale:
    """The cells of one of Optuna's distributions."""
    if isinstance(distribution, CategoricalDistribution):
        return Choices(len(distribution.choices))
    return Numbers(cast("FloatDistribution | IntDistribution", distribution))


class Choices:
    """The choices of a categorical parameter; a kernel gives most of its mass to its own choice, the rest to all."""

    def __init__(self, cells: int) -> None:
        self.cells = cells

    def cell(self, value: float) -> int:
        return int(value)

    def value(self, cell: int, within: float) -> float:
        return float(cell)

    def density(self, counts: Counts, weights: Floats) -> Floats:
        kernels = int(counts.sum()) + 1
        masses: Floats = (weights + weights.sum() / kernels) / (1 + self.cells / kernels) + 1 / self.cells
        return masses

    def kernels(self, counts: Counts) -> Floats:
        kernels = int(counts.sum()) + 1
        masses: Floats = (np.eye(self.cells) + 1 / kernels) / (1 + self.cells / kernels)
        return masses


class Numbers:
    """A range of floats or ints, logarithmic, stepped or neither."""

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._low, self._high = distribution.low, distribution.high
        self._log, self._step = distribution.log, distribution.step
        half = (self._step or 0) / 2
        self._start, end = self._low - half, self._high + half
        self.cells = CELLS
        if self._log:
            self._start, end = math.log(self._start), math.log(end)
        elif self._step:
            self.cells = min(CELLS, round((self._high - self._low) / self._step) + 1)
        self._width = (end - self._start) / self.cells
        self._prior = _prior(self.cells)

    def cell(self, value: float) -> int:
        place = math.log(value) if self._log else value
        return min(max(int((place - self._start) / self._width), 0), self.cells - 1)

    def value(self, cell: int, within: float) -> float:
        value = self._start + (cell + within) * self._width
        if self._log:
            value = math.exp(value)
        if self._step:
            value = self._low + round((value - self._low) / self._step) * self._step
        return min(max(value, self._low), self._high)

    def density(self, counts: Counts, weights: Floats) -> Floats:
        taken = np.flatnonzero(counts)
        if not taken.size:
            return self._prior
        observed = counts[taken]
        count = int(observed.sum())
        left, right = self._distances(taken, count)
        # Of several observations in a cell, one is the neighbour of what is on its left, one of what is on its right,
        # and the others are as narrow as they may be. A single one is as wide as the larger of the two distances.
        sides = np.where(observed == 1, np.maximum(left, right), (left, right)).ravel()
        wide = np.flatnonzero(sides > self._narrowest(count))
        share = weights[taken] / np.maximum(observed, 2)
        outer = np.concatenate((share, share))[wide]
        owners = np.concatenate((taken, taken))[wide]
        inner = weights - np.bincount(owners, outer, minlength=self.cells)
        places = np.concatenate((taken, owners))
        widths = np.concatenate((np.zeros(taken.size), sides[wide]))
        masses = np.concatenate((inner[taken], outer))
        windows, inside = self._windows(places, widths, count)
        density: Floats = (masses / inside) @ windows + self._prior
        return density

    def kernels(self, counts: Counts) -> Floats:
        taken, places = np.flatnonzero(counts), np.arange(self.cells)
        widths = np.zeros(self.cells)
        if taken.size:
            before, after = (np.searchsorted(taken, places, side) for side in ("left", "right"))
            left = np.where(before > 0, places - taken[before - 1], 0)
            right = np.where(after < taken.size, taken[np.minimum(after, taken.size - 1)] - places, 0)
            # Among several in its cell, it is hardly the one that is next to another cell.
            widths += np.where(counts < 2, np.maximum(left, right), 0)
        windows, inside = self._windows(places, widths, int(counts.sum()) + 1)
        kernels: Floats = windows / inside[:, None]
        return kernels

    def _distances(self, taken: Counts, count: int) -> tuple[Floats, Floats]:
        """From each taken cell to the next one on either side, in cells; the ends of the range are none, but for the
        only observation there is."""
        if count == 1:
            middle = taken.astype(np.float64) + 0.5
            return middle, self.cells - middle
        left, right = np.zeros(taken.size), np.zeros(taken.size)
        left[1:] = right[:-1] = taken[1:] - taken[:-1]
        return left, right

    def _narrowest(self, count: int) -> float:
        # Optuna counts the prior among the kernels.
        return max(self.cells / min(100, 2 + count), NARROWEST)

    def _windows(self, places: Counts, widths: Floats, count: int) -> tuple[Floats, Floats]:
        """Normal distributions that stand in the middles of cells.

        Args:
            places: (kernels,) the cells.
            widths: (kernels,) standard deviations in cells, before they are limited.
            count: Observations: the fewer, the wider the narrowest kernel.

        Returns:
            (kernels, cells) masses in each cell of the range, and (kernels,) their sums, as the ends are cut off.
        """
        limited = np.minimum(np.maximum(widths, self._narrowest(count)), self.cells)
        levels = np.rint(np.log(limited / NARROWEST) / math.log(LADDER)).astype(np.int64)
        windows, inside = _bank(self.cells)
        return windows[levels, self.cells - 1 - places], inside[levels, places]


@lru_cache
def _bank(cells: int) -> tuple[Floats, Floats]:
    """Normal kernels of every width at every place of a range.

    Returns:
        A view (widths, cells, cells) of one table of width and distance, whose [w, cells - 1 - place, k] is the mass in
        cell k of a kernel that stands in the middle of the cell `place`; and (widths, cells) how much of such a
        kernel is inside the range.
    """
    from scipy.special import ndtr

    edges = np.arange(-cells, cells) + 0.5
    table = np.diff(ndtr(edges / _WIDTHS[:, None]), axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(table, cells, axis=1)
    return windows, windows.sum(axis=2)[:, ::-1].copy()


@lru_cache
def _prior(cells: int) -> Floats:
    """A normal distribution in the middle of the range, as wide as the range, cut off at its ends."""
    from scipy.special import ndtr

    masses = np.diff(ndtr((np.arange(cells + 1) - cells / 2) / cells))
    prior: Floats = masses / masses.sum()
    return prior
