"""Sizes of feature maps, by arithmetic alone: the search uses it to propose only networks that an image can pass."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.settings import ConvLayer, Padding, Pool


def feature_map_size(size: int, layer: ConvLayer, padding: Padding) -> int:
    """Height (or width) in pixels behind a convolution and its pooling; 0 where nothing is left.

    ``same`` padding adds ``filter_size // 2`` on each side, which keeps the size at stride 1 for odd filters (an even
    filter's map grows by one pixel). Pooling halves the size, rounded down, so it needs a map of at least 2 pixels.
    """
    if size < 1:
        return 0
    padded = size + 2 * zero_padding(layer, padding)
    if padded < layer.filter_size:
        return 0
    convolved = (padded - layer.filter_size) // layer.stride + 1
    return convolved if layer.pool is Pool.NONE else convolved // 2


def feature_map_sizes(
    convolutions: Sequence[ConvLayer], padding: Padding, height: int, width: int
) -> list[tuple[int, int]]:
    """(height, width) behind each layer in turn, 0 from the layer on in which the map vanishes."""
    sizes = []
    for layer in convolutions:
        height = feature_map_size(height, layer, padding)
        width = feature_map_size(width, layer, padding)
        sizes.append((height, width))
    return sizes


def zero_padding(layer: ConvLayer, padding: Padding) -> int:
    """Rows and columns of zeros on each side of the layer's input."""
    return layer.filter_size // 2 if padding is Padding.SAME else 0
