"""Sizes of feature maps against those of real convolutions."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.trainer.trainer_cases import conv_layers
from trainer.settings import ConvLayer, Padding, Pool
from trainer.shapes import feature_map_size, feature_map_sizes


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
