"""Sizes of feature maps against those of real convolutions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import conv_layers
from trainer.settings import ConvLayer, Padding, Pool
from trainer.shapes import check_passable, feature_map_size, feature_map_sizes, obstacle


def real_size(size: int, layer: ConvLayer, padding: Padding) -> int:
    """0 where torch refuses."""
    around = layer.filter_size // 2 if padding is Padding.SAME else 0
    modules: list[nn.Module] = [nn.Conv2d(1, 1, layer.filter_size, stride=layer.stride, padding=around, device="meta")]
    if layer.pool is not Pool.NONE:
        modules.append(nn.MaxPool2d(2) if layer.pool is Pool.MAX else nn.AvgPool2d(2))
    try:
        return int(nn.Sequential(*modules)(torch.empty(1, 1, size, size, device="meta")).shape[2])
    except RuntimeError:
        return 0


@settings(deadline=None)  # the first convolution takes longer
@given(st.integers(1, 40), conv_layers, st.sampled_from(Padding))
def test_feature_map_has_the_size_that_torch_gives(size: int, layer: ConvLayer, padding: Padding) -> None:
    assert feature_map_size(size, layer, padding) == real_size(size, layer, padding)


def test_same_padding_keeps_the_size_at_stride_1_and_halves_it_upwards_at_stride_2() -> None:
    layer = ConvLayer(filters=1, filter_size=5, stride=1, pool=Pool.NONE)
    halving = ConvLayer(filters=1, filter_size=5, stride=2, pool=Pool.NONE)
    assert feature_map_size(9, layer, Padding.SAME) == 9
    assert feature_map_size(9, halving, Padding.SAME) == 5


def test_pooling_needs_two_pixels() -> None:
    pooled = ConvLayer(filters=1, filter_size=1, stride=1, pool=Pool.MAX)
    assert feature_map_size(2, pooled, Padding.VALID) == 1
    assert feature_map_size(1, pooled, Padding.VALID) == 0


def test_sizes_of_several_layers_stay_0_once_the_map_has_vanished() -> None:
    layer = ConvLayer(filters=1, filter_size=3, stride=1, pool=Pool.MAX)
    growing = ConvLayer(filters=1, filter_size=2, stride=1, pool=Pool.NONE)
    assert feature_map_sizes((layer, layer), Padding.SAME, 8, 4) == [(4, 2), (2, 1)]
    # 1x8 pooled is 0x4; by the formula alone a filter of 2 pixels with a border of 1 would make 1 of 0.
    assert feature_map_sizes((layer, growing), Padding.SAME, 1, 8) == [(0, 4), (0, 5)]


@given(st.integers(1, 12), st.integers(1, 12), conv_layers, st.sampled_from(Padding))
def test_there_is_an_obstacle_exactly_where_the_map_vanishes(
    height: int, width: int, layer: ConvLayer, padding: Padding
) -> None:
    vanishes = 0 in feature_map_sizes([layer], padding, height, width)[0]
    assert (obstacle(layer, padding, height, width) is not None) is vanishes


def test_what_no_image_passes_is_said_with_the_layer_and_both_sizes() -> None:
    layer = ConvLayer(filters=2, filter_size=5, stride=1, pool=Pool.NONE)
    with pytest.raises(BadInputError, match=r"^conv 4: the map is 3x3, the filter 5x5; use fewer layers"):
        check_passable([layer] * 4, Padding.VALID, 15, 15)
    pooled = ConvLayer(filters=2, filter_size=3, stride=1, pool=Pool.AVG)
    with pytest.raises(BadInputError, match=r"^conv 2: the map is 1x2, and pooling needs 2x2; "):
        check_passable([pooled] * 3, Padding.SAME, 2, 4)
