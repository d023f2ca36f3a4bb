"""A trial's values before they are settled: what stands in for Optuna's trial while they are drawn.

Optuna's own trial keeps the first value that it is asked for under a name and copies itself with each; here the same
trial can be drawn anew, and what does not change from trial to trial is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from search.dimensions import Value


@dataclass(frozen=True)
class Parameter:
    """A parameter's name, its distribution, and that as Optuna's JSON."""

    name: str
    distribution: BaseDistribution
    text: str


class Parameters:
    """The parameters of one study: each has the same distribution in all trials."""

    def __init__(self) -> None:
        self._known: dict[str, Parameter] = {}

    def get(self, name: str, distribution: Callable[[], BaseDistribution]) -> Parameter:
        """The parameter of a name; its distribution is made where it is new."""
        return self._known.get(name) or self.known(name, distribution())

    def known(self, name: str, distribution: BaseDistribution) -> Parameter:
        """The parameter of a name that has this distribution."""
        if name not in self._known:
            self._known[name] = Parameter(name, distribution, distribution_to_json(distribution))
        return self._known[name]


class Draft:
    """Is asked for values in place of Optuna's trial.

    Args:
        draw: Gives a parameter's value.

    Attributes:
        values: Each parameter that was asked for, with its value, in order.
    """

    def __init__(self, parameters: Parameters, draw: Callable[[Parameter], Any]) -> None:
        self._parameters = parameters
        self._draw = draw
        self.values: list[tuple[Parameter, Any]] = []

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float, as Optuna's trial has it."""
        return float(self._drawn(name, lambda: FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An int, as Optuna's trial has it."""
        return int(self._drawn(name, lambda: IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        """One of the choices."""
        return self._drawn(name, lambda: CategoricalDistribution(choices))

    def _drawn(self, name: str, distribution: Callable[[], BaseDistribution]) -> Any:
        parameter = self._parameters.get(name, distribution)
        value = self._draw(parameter)
        self.values.append((parameter, value))
        return value
