"""The search space of a study: what Optuna is asked for in each trial, and the settings that come of it.

The space is conditional. A trial asks only for what its own network has: `neurons_3` where there is a third dense
layer, `filters_2` where there is a second convolution, `momentum` where the optimizer is SGD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

import numpy as np

from search.dimensions import Choice, Fixed, Range, Value, whole_values
from search.spec import SamplerKind, StudySpec
from trainer.settings import (
    Activation,
    ConvLayer,
    Family,
    OptimizerKind,
    Padding,
    Pool,
    Schedule,
    Settings,
)
from trainer.shapes import feature_map_size, obstacle

GRID_POINTS = 5
"""Values that a grid takes of a range without steps."""


class Asked(Protocol):
    """What is asked for values: one of Optuna's trials, or what stands in for it."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One network to try.

    Attributes:
        params: What is trained, under the study file's names, fixed settings included; only what this network has.
        repairs: What no image could pass, and what is trained in its place: a sentence for each convolution.
    """

    settings: Settings
    params: dict[str, Value]
    repairs: tuple[str, ...] = ()


class Space:
    """The search space of one study on data of one shape.

    A convolution that would leave nothing of its feature map is repaired, in this order:

    1. a filter larger than the map it sees, without padding, becomes the largest of the listed sizes that fits, or as
       large as the map where none fits;
    2. pooling over a map of less than 2 x 2 pixels becomes none.

    No other setting can make a map vanish: whatever its stride, a filter that fits has at least one place to stand.
    Optuna keeps the values that it proposed, so that each of its parameters has one and the same distribution in all
    trials (its samplers learn nothing from a parameter whose choices change); `Proposal.params` says what is trained.

    A grid takes of each range its steps, or else `GRID_POINTS` values, evenly spaced (on the logarithmic scale where
    the range is `log`), rounded to whole numbers where the setting takes them.

    Args:
        input_shape: (features,) of a table or (channels, height, width) of images.
    """

    def __init__(self, spec: StudySpec, input_shape: tuple[int, ...]) -> None:
        space = spec.space
        grid = spec.search.sampler is SamplerKind.GRID
        self._families = spec.model
        self._height, self._width = input_shape[1:] if len(input_shape) == 3 else (1, 1)
        self._filter_sizes = whole_values(space.filter_size)
        self._dimensions: dict[str, Fixed | Choice | Range] = {}
        for name in type(space).model_fields:
            dimension = getattr(space, name)
            self._dimensions[name] = on_grid(dimension) if grid and isinstance(dimension, Range) else dimension

    def suggest(self, trial: Asked) -> Proposal:
        """Asks a trial for every setting of one network. No network that comes back lets an image vanish."""
        draw = _Draw(trial, self._dimensions)
        family = Family(draw.family(self._families))
        neurons = tuple(draw.whole("neurons", layer) for layer in range(1, draw.whole("layers") + 1))
        activation = Activation(draw("activation"))
        learning_rate = draw.real("learning_rate")
        optimizer = OptimizerKind(draw("optimizer"))
        momentum = draw.real("momentum") if optimizer is OptimizerKind.SGD else 0.0
        settings = Settings(
            family=family,
            neurons=neurons,
            activation=activation,
            learning_rate=learning_rate,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=draw.real("weight_decay"),
            dropout=draw.real("dropout"),
            batch_norm=bool(draw("batch_norm")),
            batch_size=draw.whole("batch_size"),
            schedule=Schedule(draw("schedule")),
        )
        repairs: list[str] = []
        if family is Family.CNN:
            settings = self._with_convolutions(settings, draw, repairs)
        return Proposal(settings=settings, params=draw.params, repairs=tuple(repairs))

    def _with_convolutions(self, settings: Settings, draw: _Draw, repairs: list[str]) -> Settings:
        proposed = [
            ConvLayer(
                filters=draw.whole("filters", layer),
                filter_size=draw.whole("filter_size", layer),
                stride=draw.whole("stride", layer),
                pool=Pool(draw("pool", layer)),
            )
            for layer in range(1, draw.whole("conv_layers") + 1)
        ]
        padding = Padding(draw("padding"))
        convolutions = []
        height, width = self._height, self._width
        for number, layer in enumerate(proposed, start=1):
            trained = repaired(layer, padding, height, width, self._filter_sizes)
            if trained != layer:
                repairs.append(f"conv {number}: {_repair(layer, trained, padding, height, width)}")
            height, width = (feature_map_size(size, trained, padding) for size in (height, width))
            draw.params[f"filter_size_{number}"] = trained.filter_size
            draw.params[f"pool_{number}"] = trained.pool.value
            convolutions.append(trained)
        return replace(settings, convolutions=tuple(convolutions), padding=padding)


class _Draw:
    """Takes settings from a trial, by name, and remembers them; fixed ones are not asked for."""

    def __init__(self, trial: Asked, dimensions: dict[str, Fixed | Choice | Range]) -> None:
        self._trial = trial
        self._dimensions = dimensions
        self.params: dict[str, Value] = {}

    def __call__(self, name: str, layer: int | None = None) -> Any:
        key = name if layer is None else f"{name}_{layer}"
        self.params[key] = self._drawn(key, self._dimensions[name])
        return self.params[key]

    def whole(self, name: str, layer: int | None = None) -> int:
        return int(self(name, layer))

    def real(self, name: str) -> float:
        return float(self(name))

    def family(self, families: tuple[Family, ...]) -> str:
        names = tuple(family.value for family in families)
        dimension = Choice(values=names) if len(names) > 1 else Fixed(value=names[0])
        self.params["model"] = self._drawn("model", dimension)
        return str(self.params["model"])

    def _drawn(self, key: str, dimension: Fixed | Choice | Range) -> Value:
        if isinstance(dimension, Fixed):
            return dimension.value
        if isinstance(dimension, Choice):
            value: Value = self._trial.suggest_categorical(key, dimension.values)
            return value
        low, high, step, log = dimension.low, dimension.high, dimension.step, dimension.log
        if isinstance(low, int) and isinstance(high, int):
            return self._trial.suggest_int(key, low, high, step=int(step or 1), log=log)
        return self._trial.suggest_float(key, low, high, step=step, log=log)


def repaired(layer: ConvLayer, padding: Padding, height: int, width: int, filter_sizes: list[int]) -> ConvLayer:
    """The layer itself where a map of `height` x `width` pixels passes it, else repaired by the rule of `Space`.

    Args:
        filter_sizes: The sizes that the study lists, ascending.
    """
    side = min(height, width)
    if feature_map_size(side, layer, padding) < 1 and padding is Padding.VALID and layer.filter_size > side:
        layer = replace(layer, filter_size=max((size for size in filter_sizes if size <= side), default=side))
    if feature_map_size(side, layer, padding) < 1:
        layer = replace(layer, pool=Pool.NONE)
    return layer


def _repair(layer: ConvLayer, trained: ConvLayer, padding: Padding, height: int, width: int) -> str:
    """What stood in the way, and what is trained instead, in words."""
    changes = []
    if trained.filter_size != layer.filter_size:
        changes.append(f"with a filter of {trained.filter_size}x{trained.filter_size}")
    if trained.pool is not layer.pool:
        changes.append("without pooling")
    return f"{obstacle(layer, padding, height, width)}; it is trained {' and '.join(changes)}"


def on_grid(dimension: Range) -> Choice:
    """The values that a grid takes of a range; see `Space`."""
    low, high = dimension.low, dimension.high
    if dimension.step is not None:
        # Decimals of the written numbers: 0.1 steps from 0.0 are 0.3 and not 0.30000000000000004.
        first, step = Decimal(str(low)), Decimal(str(dimension.step))
        count = int((Decimal(str(high)) - first) / step) + 1
        return Choice(values=tuple(type(low)(first + step * index) for index in range(count)))
    spaced = np.geomspace if dimension.log else np.linspace
    points = [float(point) for point in spaced(low, high, GRID_POINTS)]
    points[0], points[-1] = low, high  # exactly, where the spacing rounds
    if isinstance(low, int):
        return Choice(values=tuple(sorted({round(point) for point in points})))
    return Choice(values=tuple(points))
