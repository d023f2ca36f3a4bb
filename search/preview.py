"""A whole search space before anything is spent: how large its networks are, how many there are, and how many no image
could pass. By arithmetic and random draws; nothing is trained here (`search.forecast` does that)."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from search.chosen import middle
from search.dimensions import Choice, Fixed, Range, Value
from search.parameters import key_of
from search.sampler import Stream, derived_seed
from search.space import Proposal, Space
from search.spec import StudySpec
from trainer.anatomy import layers_of
from trainer.memory import training_memory
from trainer.settings import Settings

DRAWS = 1000

COUNTED = 10_000
"""Combinations that are gone through, to see which of them come to the same network."""

RULE = (
    "a filter larger than the map that it sees becomes the largest of the listed sizes that fits, or as large as the "
    "map; pooling over less than 2x2 pixels is left out"
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """
    Attributes:
        memory: Bytes that training it takes at its peak, beside the dataset.
        multiply_adds: Of one row on its way forth.
    """

    params: dict[str, Value]
    weights: int
    memory: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """
    Attributes:
        median: Of random draws, by weights, as are the two others.
        smallest, largest: Of random draws, and of networks at the ends of all ranges.
        draws: The random draws: what a search would begin with.
        repaired: Share of the draws that no image could pass as they were drawn.
        repairs: What stood in the way in the most draws, the most frequent first, with its share of them.
        combinations: Of the values that are listed or stepped; None where there are more than `COUNTED`.
        different: How many of these are different networks once those that no image passes are repaired.
        continuous: Ranges without steps. Each combination can be had with any of their values.
    """

    smallest: Network
    median: Network
    largest: Network
    draws: tuple[Settings, ...]
    repaired: float
    repairs: tuple[tuple[str, float], ...]
    combinations: int | None
    different: int | None
    continuous: tuple[str, ...]


def preview(spec: StudySpec, input_shape: tuple[int, ...], outputs: int, rows: int) -> Preview:
    """
    Args:
        input_shape: (features,) of a table or (channels, height, width) of images.
        rows: Of the train split.
    """
    space = Space(spec, input_shape)
    draw = _Random(random.Random(derived_seed(spec.seed, Stream.PREVIEW)))
    draws = [space.suggest(draw) for _ in range(DRAWS)]

    def weights(proposal: Proposal) -> int:
        return sum(layer.weights for layer in layers_of(proposal.settings, input_shape, outputs))

    def network(proposal: Proposal) -> Network:
        layers = layers_of(proposal.settings, input_shape, outputs)
        return Network(
            params=proposal.params,
            weights=sum(layer.weights for layer in layers),
            memory=training_memory(proposal.settings, input_shape, outputs, rows),
            multiply_adds=sum(layer.multiply_adds for layer in layers),
        )

    by_weights = sorted(draws, key=weights)
    extremes = [by_weights[0], by_weights[-1], *_corners(spec, space)]
    stopped = Counter(repair for each in draws for repair in set(each.repairs))
    combinations, different, continuous = _count(space)
    return Preview(
        smallest=network(min(extremes, key=weights)),
        median=network(by_weights[DRAWS // 2]),
        largest=network(max(extremes, key=weights)),
        draws=tuple(each.settings for each in draws),
        repaired=sum(bool(each.repairs) for each in draws) / DRAWS,
        repairs=tuple((repair, count / DRAWS) for repair, count in stopped.most_common(3)),
        combinations=combinations,
        different=different,
        continuous=continuous,
    )


class _Random:
    """Draws each value at random, as a search's first trials are."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is not None:
            return low + step * self._source.randint(0, round((high - low) / step))
        return math.exp(self._source.uniform(math.log(low), math.log(high))) if log else self._source.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:  # as Optuna does it: each whole number has the room of half a step on both sides
            drawn = math.exp(self._source.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(max(round(drawn), low), high)
        return low + step * self._source.randint(0, (high - low) // step)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        return self._source.choice(choices)


class _Given:
    """Answers with what was settled for a setting, in all layers alike, and else with the middle."""

    def __init__(self, settled: dict[str, Value]) -> None:
        self._settled = settled

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(middle(Range(low=low, high=high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._settled.get(key_of(name), low))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        return self._settled.get(key_of(name), choices[0])


def _corners(spec: StudySpec, space: Space) -> Iterator[Proposal]:
    """Networks at the ends of all ranges. More neurons and filters always are more weights; of the others not even the
    sign is known: a second convolution may leave fewer pixels to the dense layers."""
    ends = {
        name: _ends(getattr(spec.space, name))
        for name in ("layers", "conv_layers", "filter_size", "stride", "padding", "pool", "batch_norm")
    }
    ends["model"] = [family.value for family in spec.model]
    for end in (0, -1):
        widths = {name: _ends(getattr(spec.space, name))[end] for name in ("neurons", "filters")}
        for values in itertools.product(*ends.values()):
            yield space.suggest(_Given({**widths, **dict(zip(ends, values, strict=True))}))


def _ends(dimension: Fixed | Choice | Range) -> list[Value]:
    """The least and the largest number, or all words; both kinds of pooling leave the same."""
    if isinstance(dimension, Fixed):
        return [dimension.value]
    if isinstance(dimension, Range):
        return [dimension.low, dimension.high]
    if any(isinstance(value, bool | str) for value in dimension.values):
        return [value for value in dimension.values if value != "avg" or "max" not in dimension.values]
    return [min(dimension.values), max(dimension.values)]


class _Odometer:
    """Answers with every combination of values in turn; a range without steps has one value only.

    Attributes:
        continuous: The names of such ranges.
    """

    def __init__(self) -> None:
        self._places: list[list[int]] = []  # which value each question was answered with, and how many there are
        self._asked = 0
        self.continuous: dict[str, None] = {}

    def advance(self) -> bool:
        """Goes on to the next combination; False after the last."""
        self._asked = 0
        while self._places:
            place = self._places[-1]
            place[0] += 1
            if place[0] < place[1]:
                return True
            self._places.pop()
        return False

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            self.continuous[name] = None
            return float(middle(Range(low=low, high=high, log=log)))
        return low + step * self._next(round((high - low) / step) + 1)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return low + step * self._next((high - low) // step + 1)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        return choices[self._next(len(choices))]

    def _next(self, size: int) -> int:
        if self._asked == len(self._places):
            self._places.append([0, size])
        self._asked += 1
        return self._places[self._asked - 1][0]


def _count(space: Space) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Combinations, different networks among them, and the ranges without steps."""
    odometer, different, count = _Odometer(), set(), 0
    while count <= COUNTED:
        different.add(space.suggest(odometer).settings)
        count += 1
        if not odometer.advance():
            return count, len(different), tuple(odometer.continuous)
    return None, None, tuple(odometer.continuous)
