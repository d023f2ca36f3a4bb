"""Whether a network's products are computed in float32 or, on a GPU where that is faster, in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

from trainer.settings import Settings

WORTHWHILE = 1.05
"""bfloat16 must be this many times as fast: less is within the noise of the measurement, and float32 is exact."""


class Precision(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def faster(float32_seconds: float, bfloat16_seconds: float) -> Precision:
    """The precision to use, by the time that an epoch took in each."""
    return Precision.BFLOAT16 if bfloat16_seconds * WORTHWHILE <= float32_seconds else Precision.FLOAT32


def shape_class(settings: Settings) -> tuple[object, ...]:
    """Equal for networks that cost much the same: family, depths, and powers of two of the widths and the batch."""
    widest_dense = max(settings.neurons, default=1)
    widest_convolution = max((layer.filters for layer in settings.convolutions), default=1)
    sizes = (widest_dense, widest_convolution, settings.batch_size)
    powers = tuple(round(math.log2(size)) for size in sizes)
    return settings.family, len(settings.neurons), len(settings.convolutions), *powers


class PrecisionChoice:
    """Measures once for each class of shapes in the life of a process, and only where bfloat16 can win.

    Args:
        can_win: Whether the device is a GPU with bfloat16 arithmetic.
        measure: Seconds that a network with these settings trains for an epoch.
    """

    def __init__(self, can_win: bool, measure: Callable[[Settings, Precision], float]) -> None:
        self._can_win = can_win
        self._measure = measure
        self._chosen: dict[tuple[object, ...], Precision] = {}

    def choose(self, settings: Settings) -> Precision:
        if not self._can_win:
            return Precision.FLOAT32
        shape = shape_class(settings)
        if shape not in self._chosen:
            float32 = self._measure(settings, Precision.FLOAT32)
            self._chosen[shape] = faster(float32, self._measure(settings, Precision.BFLOAT16))
        return self._chosen[shape]
