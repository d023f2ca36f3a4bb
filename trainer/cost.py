"""What training a network costs, by arithmetic alone: the search sizes packs by it. Standard library only."""

from __future__ import annotations

from functools import lru_cache

from trainer.anatomy import layers_of
from trainer.settings import Settings


@lru_cache(maxsize=4096)  # asked again with each pack that a trial is part of
def training_flops(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> float:
    """Floating-point operations of one row on its way forth and back: two for each product of a weight on the way
    forth, and four on the way back, for the gradients of weights and inputs.

    Args:
        input_shape: (features,) or (channels, height, width).
    """
    return 6.0 * sum(layer.multiply_adds for layer in layers_of(settings, input_shape, outputs))
