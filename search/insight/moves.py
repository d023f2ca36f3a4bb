"""How the ends of a range are moved. Pure arithmetic on `search.dimensions.Range`; every result keeps its rules."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from pydantic_core import PydanticCustomError

from search.dimensions import Choice, Range, Real, Whole, plain, within

Number = int | float

DIGITS = 2
"""Digits of a fraction's end that was moved: a study file is read by people."""

_BLUR = 1e-9
"""What exp(log(x)) may add to a whole number."""


def place(dimension: Range, value: Number) -> float:
    """Where a value stands on the range's own scale, on which its width is measured."""
    return math.log(value) if dimension.log else float(value)


def width(dimension: Range) -> float:
    """Of the range, on its own scale."""
    return place(dimension, dimension.high) - place(dimension, dimension.low)


def value_at(dimension: Range, at: float) -> float:
    """The inverse of `place`."""
    return math.exp(at) if dimension.log else at


def widened(dimension: Range, *, up: bool, limits: tuple[Number, Number], factor: float) -> Range:
    """The range with its upper or its lower end moved outwards, within limits.

    Args:
        limits: What no end is moved past; an end that lies past it already stays.
        factor: A logarithmic range grows by this factor; another one by half of its width, or by the factor where that
            is more.
    """
    if dimension.log:
        by = math.log(factor)
    else:
        least = dimension.step or (1 if isinstance(dimension.low, int) else 0)
        by = max(width(dimension) / 2, float(least))
    end = place(dimension, dimension.high) + by if up else place(dimension, dimension.low) - by
    target = value_at(dimension, end)
    if not dimension.log:
        target = max(target, factor * dimension.high) if up else min(target, dimension.low / factor)
    target = min(target, limits[1]) if up else max(target, limits[0])
    moved = _with_end(dimension, upper=up, target=target, steps=ROUND_FLOOR)
    if up:
        return moved if dimension.high < moved.high <= limits[1] else dimension
    return moved if limits[0] <= moved.low < dimension.low else dimension


def drawn_in(dimension: Range, *, upper: bool, target: float) -> Range:
    """The range with its upper or its lower end moved inwards, but not past `target`, which stays inside."""
    moved = _with_end(dimension, upper=upper, target=target, steps=ROUND_CEILING)
    return moved if (moved.high < dimension.high if upper else moved.low > dimension.low) else dimension


def extended(choice: Choice, *, up: bool, limits: tuple[Number, Number]) -> Choice:
    """The numbers of a choice with one more at its upper or its lower end, as far from that as its neighbour is (as
    many times its size where they double, from 8 on); the same choice where there is no room, or no number."""
    numbers = sorted(value for value in choice.values if isinstance(value, int | float) and not isinstance(value, bool))
    if len(numbers) < len(choice.values):
        return choice
    end, neighbour = (numbers[-1], numbers[-2]) if up else (numbers[0], numbers[1])
    doubles = min(end, neighbour) > 0 and max(end / neighbour, neighbour / end) >= 2 and max(end, neighbour) >= 8
    found = end * (end / neighbour) if doubles else end + (end - neighbour)
    found = min(max(found, limits[0]), limits[1])
    new: Number = round(found) if isinstance(end, int) else float(f"{found:.{DIGITS}g}")
    if new <= end if up else new >= end:
        return choice
    return Choice(values=(*choice.values, new) if up else (new, *choice.values))


def _with_end(dimension: Range, *, upper: bool, target: float, steps: str) -> Range:
    """The range with one end at `target`, rounded away from the other end; the same where that end can't be there.

    Args:
        steps: How a number of steps is rounded.
    """
    end: Number
    if dimension.step is not None:
        end = _stepped(dimension, upper, target, steps)
    elif isinstance(dimension.low, int):
        end = math.ceil(target - _BLUR) if upper else math.floor(target + _BLUR)
    else:
        end = _rounded(target, upper)
    moved = replace(dimension, high=end) if upper else replace(dimension, low=end)
    whole = isinstance(dimension.low, int)
    try:
        checked = within(Whole(-(10**15), 10**15) if whole else Real())(plain(moved))
    except PydanticCustomError:
        return dimension
    return checked if isinstance(checked, Range) else dimension


def _rounded(value: float, upper: bool) -> float:
    exact = Decimal(repr(value))
    if not exact:
        return value
    unit = Decimal(1).scaleb(exact.adjusted() - (DIGITS - 1))
    wholes = (exact / unit).quantize(Decimal("1.000000"))  # 0.30000000000000004 is 0.3
    return float(wholes.to_integral_value(ROUND_CEILING if upper else ROUND_FLOOR) * unit)


def _stepped(dimension: Range, upper: bool, target: float, steps: str) -> Number:
    """The end that is about `target` from the other one in whole steps; decimals of the written numbers, as in the
    study file's rules."""
    step, fixed = Decimal(str(dimension.step)), Decimal(str(dimension.low if upper else dimension.high))
    count = (abs(Decimal(repr(float(target))) - fixed) / step).to_integral_value(steps)
    return type(dimension.low)(fixed + count * step if upper else fixed - count * step)
