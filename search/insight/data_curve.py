"""The data curve: what more train rows would bring, by a power law with an offset through the runs on shares of
them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit

from search.insight.findings import DataCurve, ExtraRun, Level, Levels, Probe, SeedNoise
from search.insight.plain_words import figure

STEEPEST = 3.0
"""Exponents of learning curves lie between 0 and 1 in practice (Hestness et al. 2017); faster ones fit noise."""

FARTHEST = 10.0
"""No number of rows is told beyond so many times those at hand: no law is known to hold that far."""

DRAWS = 1000

EXPONENTS = np.geomspace(0.01, STEEPEST, 200)
"""Tried ones, for the laws of jittered values."""

Values = npt.NDArray[np.float64]


def data_curve(
    extra_runs: Sequence[ExtraRun],
    *,
    winner: int,
    levels: Levels,
    rows: int,
    noise: float,
    seeds: SeedNoise | None,
    seed: int,
) -> DataCurve | None:
    """The curve of the winner over its train rows; None where it was trained on no share of them.

    Args:
        rows: Of the whole train split.
        noise: Standard deviation of a value, as far as it is known; never under that between the winner's seeds.
    """
    known: dict[int, list[float]] = {}
    for run in extra_runs:
        if run.probe is Probe.ROWS and run.trial == winner and run.validation is not None and run.rows > 0:
            known.setdefault(run.rows, []).append(run.validation)
    if not [count for count in known if count != rows]:
        return None
    own = None if seeds is None else next((each for each in seeds.contenders if each.trial == winner), None)
    if own is not None and own.values:
        known.setdefault(rows, []).extend(own.values)  # the search's own value is the best of many
    elif rows not in known:
        known[rows] = [levels.validation.value]
    counts = tuple(sorted(known))
    values = tuple(float(np.mean(known[count])) for count in counts)
    spread = max(noise, seeds.std if seeds is not None else 0.0)
    goal = levels.target if levels.target is not None else levels.human
    return fitted(counts, values, goal=goal, spread=spread, seed=seed)


def fitted(rows: Sequence[int], values: Sequence[float], *, goal: float | None, spread: float, seed: int) -> DataCurve:
    """``a * rows ** -b + c`` through the values, by least squares (Cortes et al. 1993, NIPS 6; Hestness et al. 2017),
    with a > 0, 0 < b <= `STEEPEST`, c >= 0, where the values fall with the rows by more than their noise.

    The rows that would reach the goal are told with an interval, from fits to values that are jittered by their noise;
    and only where 19 fits in 20 say a number at all, up to `FARTHEST` times the rows at hand.

    Args:
        rows: Ascending.
        spread: Standard deviation of each value.
    """
    counts, measured = np.asarray(rows, float), np.asarray(values, float)

    def curve(law: Values | None, needed: Level | None, why_not: str | None) -> DataCurve:
        a, b, c = (None, None, None) if law is None else map(float, law)
        return DataCurve(rows=tuple(rows), values=tuple(values), a=a, b=b, c=c, rows_for_target=needed, why_not=why_not)

    if len(counts) < 3:
        return curve(None, None, "A law with an offset needs runs on three numbers of rows at least.")
    fallen = float(measured[0] - measured[-1])
    if fallen <= 2 * math.sqrt(2) * spread or fallen <= 0:
        return curve(None, None, "More rows did not help by more than the noise between runs, so no law is fitted.")
    law = _law(counts, measured)
    if law is None:
        return curve(None, None, "No power law goes through these values.")
    if goal is None:
        return curve(law, None, "The study names neither a target nor a person's level to reach.")
    if measured[-1] <= goal:
        return curve(law, None, f"{figure(goal)} is reached with the rows at hand.")
    needed = _rows_for(law, goal)
    if math.isinf(needed):
        return curve(law, None, f"The law levels off at {figure(float(law[2]))}, above {figure(goal)}.")
    low, high = _jittered(counts, measured, goal, spread, seed) if spread else (needed, needed)
    most = FARTHEST * counts[-1]
    if high > most:
        told = f"from {low:,.0f} to " + ("any number" if math.isinf(high) else f"{high:,.0f}")
        if low > most:
            told = f"{low:,.0f} or more"
        return curve(
            law, None, f"The law says {told} of rows for {figure(goal)}; beyond {most:,.0f} it is not to be trusted."
        )
    return curve(law, Level(value=needed, low=min(low, needed), high=max(high, needed)), None)


def _jittered(rows: Values, values: Values, goal: float, spread: float, seed: int) -> tuple[float, float]:
    """Between what the rows for the goal lie in 19 of 20 laws through values that are jittered by their noise."""
    noise = np.random.default_rng(seed).normal(size=(DRAWS, len(rows)))
    laws = _laws(rows / rows[-1], values + spread * noise)
    reached = [float(rows[-1]) * _rows_for(law, goal) for law in laws]
    low, high = np.quantile(reached, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def _law(rows: Values, values: Values) -> Values | None:
    """a, b and c by least squares; None where the values don't fall, or no fit is found."""
    scale, unit = float(values.max()), float(rows[-1])
    if scale <= 0 or values[-1] >= values[0]:
        return None
    start = _laws(rows / unit, values[None] / scale)[0]

    def power(share: Values, a: float, b: float, c: float) -> Values:
        return np.asarray(a * share**-b + c)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # that three points leave no room for an error
        try:
            (a, b, c), _ = curve_fit(
                power,
                rows / unit,
                values / scale,
                p0=np.clip(start, 1e-9, (np.inf, STEEPEST, np.inf)),
                bounds=((0, 0, 0), (np.inf, STEEPEST, np.inf)),
                max_nfev=1000,
            )
        except RuntimeError:
            a, b, c = start
    return np.array([scale * a * unit**b, b, scale * c])


def _laws(shares: Values, values: Values) -> Values:
    """The laws through many curves at once, to the nearest of `EXPONENTS`: for each exponent the best a and c are those
    of a straight line, which ends at nought where they would go below.

    Args:
        shares: Rows of each point as a share of the most, (points,).
        values: (curves, points).

    Returns:
        a, b and c of each curve, (curves, 3).
    """
    powers = shares[None] ** -EXPONENTS[:, None]  # (exponents, points)
    mean, middle = values.mean(1)[:, None], powers.mean(1)
    centred = powers - middle[:, None]
    slopes = values @ centred.T / np.square(centred).sum(1)
    offsets = mean - slopes * middle
    through = values @ powers.T / np.square(powers).sum(1)  # without an offset
    slopes = np.where(offsets < 0, through, slopes)
    offsets = np.maximum(offsets, 0)
    flat = slopes <= 0
    slopes, offsets = np.where(flat, 0, slopes), np.where(flat, mean, offsets)
    misses = np.square(slopes[:, :, None] * powers + offsets[:, :, None] - values[:, None]).sum(2)
    best, each = misses.argmin(1), np.arange(len(values))
    return np.column_stack([slopes[each, best], EXPONENTS[best], offsets[each, best]])


def _rows_for(law: Values, goal: float) -> float:
    a, b, c = map(float, law)
    if goal <= c or a <= 0:
        return math.inf
    exponent = math.log(a / (goal - c)) / b
    return math.exp(exponent) if exponent < 100 else math.inf
