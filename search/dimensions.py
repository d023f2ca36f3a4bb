"""One dimension of a search space (a fixed value, a choice or a range) and the values that a setting may take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Protocol

from pydantic import PlainSerializer
from pydantic_core import PydanticCustomError

Value = bool | int | float | str
RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A setting that is the same in every trial."""

    value: Value


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that takes one of two or more values."""

    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number between two ends, both included; ``low < high`` always holds.

    Attributes:
        low: An int for a setting that takes whole numbers, else a float; `high` is of the same type.
        log: Whether small and large values are equally likely on a logarithmic scale; never together with `step`.
        step: Distance between neighbouring values; `high` is a whole number of steps above `low`.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None


def plain(dimension: Fixed | Choice | Range) -> Any:
    """What a study file would say: a value, a list or a mapping."""
    if isinstance(dimension, Fixed):
        return dimension.value
    if isinstance(dimension, Choice):
        return list(dimension.values)
    ends: dict[str, Any] = {"low": dimension.low, "high": dimension.high}
    if dimension.log:
        ends["log"] = True
    if dimension.step is not None:
        ends["step"] = dimension.step
    return ends


def listed(dimension: Fixed | Choice | Range) -> tuple[Value, ...]:
    """The values of a fixed setting or a choice; none for a range."""
    if isinstance(dimension, Choice):
        return dimension.values
    return (dimension.value,) if isinstance(dimension, Fixed) else ()


def whole_values(dimension: Fixed | Choice | Range) -> list[int]:
    """Every value of a setting that takes whole numbers, ascending."""
    if isinstance(dimension, Range):
        return list(range(int(dimension.low), int(dimension.high) + 1, int(dimension.step or 1)))
    return sorted(int(value) for value in listed(dimension))


Dimension = Annotated[Fixed | Choice | Range, PlainSerializer(plain)]


def broken(rule: str, *at: str | int) -> PydanticCustomError:
    """A rule that doesn't hold.

    Args:
        rule: What is wrong and what would be right; where it begins with ``must``, the key's name is put before it.
        at: The way to the culprit, below the place where the error is raised.
    """
    return PydanticCustomError("rule", "{rule}", {"rule": rule, "at": at})


def shown(value: object) -> str:
    """A value as its user wrote it, cut short, for a message."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{_cut(value)}'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**15:
        return "a number with too many digits"
    return number_text(value) if isinstance(value, int | float) else type(value).__name__


def _cut(text: str) -> str:
    safe = "".join(letter if letter.isprintable() else "?" for letter in text[:41])
    return safe if len(text) <= 40 else safe[:40] + "…"


def number_text(value: int | float) -> str:
    """The shortest exact text of a number, without an exponent where that stays readable: ``0.000001``, ``1e-12``."""
    if not math.isfinite(value):
        return f".{value}" if value != -math.inf else "-.inf"
    text = str(value)
    return format(Decimal(text), "f") if "e" in text and 1e-10 <= abs(value) < 1e16 else text


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """``; did you mean 'adam'?`` for a near miss, else an empty text."""
    near = get_close_matches(word.strip().lower(), words, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


class Domain(Protocol):
    """The values that a setting may take."""

    def check(self, value: object) -> Value:
        """The value as a plain bool, int, float or str; raises `PydanticCustomError` where it is outside."""


@dataclass(frozen=True)
class Whole:
    """Whole numbers between two ends, both included. ``100.0`` and ``1e2`` count as 100; true and false don't count."""

    low: int
    high: int

    def check(self, value: object) -> int:
        """The value as an int."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            rule = f"must be a whole number from {self.low:,} to {self.high:,}"
            raise broken(f"{rule}, but is {shown(value)}{_quotes_off(value)}")
        return value


@dataclass(frozen=True)
class Real:
    """Finite numbers between two ends; an end that is `open` does not belong to them. true and false don't count."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def check(self, value: object) -> float:
        """The value as a float."""
        # Comparing before converting: float() overflows for an int of hundreds of digits.
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._holds(value):
            raise broken(f"must be {self._said()}, but is {shown(value)}{_quotes_off(value)}")
        return float(value)

    def _holds(self, value: int | float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and abs(value) < 1e300

    def _said(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'over' if self.low_open else 'at least'} {number_text(self.low).removesuffix('.0')}")
        if self.high < math.inf:
            parts.append(f"{'under' if self.high_open else 'at most'} {number_text(self.high).removesuffix('.0')}")
        return " ".join(["a number", " and ".join(parts)]).strip()


@dataclass(frozen=True)
class Names:
    """The members of an enumeration, by name."""

    kind: type[StrEnum]

    def check(self, value: object) -> str:
        """The member's plain text."""
        words = [member.value for member in self.kind]
        if not isinstance(value, str) or value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            raise broken(f"must be {' | '.join(words)}, but is {shown(value)}{hint}")
        return str(value)


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def check(self, value: object) -> bool:
        """The value itself."""
        if not isinstance(value, bool):
            raise broken(f"must be true or false, but is {shown(value)}")
        return value


def _quotes_off(value: object) -> str:
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return ", which is text: write it without quotes"


def within(domain: Domain) -> Callable[[object], Fixed | Choice | Range]:
    """Reads what a study file says of one setting: a value is fixed, a list is a choice, a mapping is a range.

    A list of one and a range whose ends are equal become `Fixed`.
    """

    def read(value: object) -> Fixed | Choice | Range:
        if isinstance(value, Fixed | Choice | Range):
            return value
        if isinstance(value, Mapping):
            return _range(domain, value)
        if isinstance(value, list | tuple):
            return _choice(domain, value)
        return Fixed(value=domain.check(value))

    return read


def _choice(domain: Domain, given: list[object] | tuple[object, ...]) -> Fixed | Choice:
    if not given:
        raise broken("must have at least one value to choose from, but the list is empty")
    values: list[Value] = []
    for index, item in enumerate(given):
        value = _checked(domain, item, index)
        if value in values:
            raise broken(f"must have each value once, but {shown(value)} is in the list twice", index)
        values.append(value)
    return Fixed(value=values[0]) if len(values) == 1 else Choice(values=tuple(values))


def _range(domain: Domain, given: Mapping[Any, object]) -> Fixed | Range:
    if not isinstance(domain, Whole | Real):
        raise broken("must be a value or a list: a range {low, high} is for numbers only")
    for key in given:
        if key not in RANGE_KEYS:
            said = ", ".join(RANGE_KEYS)
            hint = did_you_mean(str(key), RANGE_KEYS)
            raise broken(f"unknown key '{_cut(str(key))}' in a range, which has {said}{hint}", str(key))
    for key in ("low", "high"):
        if key not in given:
            raise broken(f"must have both low and high as a range, but {key} is missing")
    low, high = _checked(domain, given["low"], "low"), _checked(domain, given["high"], "high")
    log = _checked(Flag(), given.get("log", False), "log")
    if low > high:
        raise broken(f"must have low <= high, but low is {shown(low)} and high is {shown(high)}: swap them", "low")
    if log and given.get("step") is not None:
        raise broken("must have either log or step, not both: leave one of them out", "step")
    if log and low <= 0:
        raise broken(f"must have low over 0 as a log range, but low is {shown(low)}: raise low or leave log out", "low")
    step = _step(domain, low, high, given["step"]) if given.get("step") is not None else None
    return Fixed(value=low) if low == high else Range(low=low, high=high, log=bool(log), step=step)


def _step(domain: Whole | Real, low: int | float, high: int | float, given: object) -> int | float:
    kind: Domain = Whole(1, 10**9) if isinstance(domain, Whole) else Real(0, low_open=True)
    step: int | float = _checked(kind, given, "step")
    # Decimals of the written numbers, so that 0.1 steps from 0.0 do reach 0.3.
    steps = (Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step))
    reached = type(high)(Decimal(str(low)) + steps * Decimal(str(step)))
    if reached != high:
        raise broken(
            f"must have a high that is a whole number of steps above low, but steps of {shown(step)} from "
            f"{shown(low)} reach {shown(reached)}, not {shown(high)}: write high: {shown(reached)}",
            "step",
        )
    return step


def _checked(domain: Domain, value: object, at: str | int) -> Any:
    try:
        return domain.check(value)
    except PydanticCustomError as error:
        raise broken((error.context or {})["rule"], at) from None
