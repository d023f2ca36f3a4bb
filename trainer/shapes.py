"""Sizes of feature maps, by arithmetic alone: the search uses it to propose only networks that an image can pass."""

from __future__ import annotations

from collections.abc import Sequence

from neurosweep.errors import BadInputError
from trainer.settings import ConvLayer, Padding, Pool


def feature_map_size(size: int, layer: ConvLayer, padding: Padding) -> int:
    """Height (or width) in pixels behind a convolution and its pooling; 0 where nothing is left.

    ``same`` padding adds ``filter_size // 2`` on each side, which keeps the size at stride 1 for odd filters (an even
    filter's map grows by one pixel). Pooling halves the size, rounded down, so it needs a map of at least 2 pixels.
    """
    convolved = convolved_size(size, layer, padding)
    return convolved if layer.pool is Pool.NONE else convolved // 2


def convolved_size(size: int, layer: ConvLayer, padding: Padding) -> int:
    """Height (or width) in pixels behind a convolution, before it is pooled; 0 where nothing is left."""
    padded = size + 2 * zero_padding(layer, padding)
    return (padded - layer.filter_size) // layer.stride + 1 if size >= 1 and padded >= layer.filter_size else 0


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


def obstacle(layer: ConvLayer, padding: Padding, height: int, width: int) -> str | None:
    """Why a map of this size does not pass the layer, in words; None where it does."""
    behind = [convolved_size(side, layer, padding) for side in (height, width)]
    if 0 in behind:
        return f"the map is {height}x{width}, the filter {layer.filter_size}x{layer.filter_size}"
    if layer.pool is not Pool.NONE and min(behind) < 2:
        return f"the map is {behind[0]}x{behind[1]}, and pooling needs 2x2"
    return None


def check_passable(convolutions: Sequence[ConvLayer], padding: Padding, height: int, width: int) -> None:
    """
    Raises:
        BadInputError: An image of this size does not pass the convolutions; says where it ends, and why.
    """
    for number, layer in enumerate(convolutions, start=1):
        why = obstacle(layer, padding, height, width)
        if why is not None:
            remedy = "use fewer layers, a smaller filter or stride, or no pooling"
            raise BadInputError(f"conv {number}: {why}; {remedy}")
        height, width = (feature_map_size(side, layer, padding) for side in (height, width))
