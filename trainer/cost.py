"""What training a network costs, by arithmetic alone: the search sizes packs by it. Standard library only."""

from __future__ import annotations

import math

from trainer.settings import Family, Settings
from trainer.shapes import feature_map_sizes


def training_flops(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> float:
    """Floating-point operations of one row on its way forth and back: two for each product of a weight on the way
    forth, and four on the way back, for the gradients of weights and inputs.

    Args:
        input_shape: (features,) or (channels, height, width).
    """
    products = 0
    width = math.prod(input_shape)
    if settings.family is Family.CNN:
        channels, height, width = input_shape
        sizes = feature_map_sizes(settings.convolutions, settings.padding, height, width)
        for layer, size in zip(settings.convolutions, sizes, strict=True):
            # The size behind pooling is at least a quarter of that which the filters pass over.
            pixels = math.prod(size) * (1 if layer.pool == "none" else 4)
            products += pixels * layer.filters * channels * layer.filter_size**2
            channels = layer.filters
        width = channels * math.prod(sizes[-1] if sizes else (height, width))
    for neurons in (*settings.neurons, outputs):
        products += width * neurons
        width = neurons
    return 6.0 * products
