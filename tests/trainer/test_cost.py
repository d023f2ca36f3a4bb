"""The arithmetic of what training costs, beside PyTorch's own count."""

from __future__ import annotations

import dataclasses

import hypothesis
import pytest
import torch
from hypothesis import assume, given
from torch.utils.flop_counter import FlopCounterMode

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import MLP, any_cnn_settings, any_settings
from trainer.cost import training_flops
from trainer.networks import build
from trainer.settings import ConvLayer, Family, Pool, Settings


def counted(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> int:
    """Of one row on its way forth, by PyTorch."""
    network = build(settings, input_shape, outputs, torch.Generator()).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *input_shape))
    return int(counter.get_total_flops())


@hypothesis.settings(deadline=None)
@given(any_settings)
def test_a_dense_networks_way_forth_is_a_third_of_its_cost(settings: Settings) -> None:
    assert training_flops(settings, (7,), 3) == 3 * counted(settings, (7,), 3)


@hypothesis.settings(deadline=None)
@given(any_cnn_settings)
def test_a_cnn_without_pooling_is_counted_as_pytorch_counts_it(settings: Settings) -> None:
    layers = tuple(dataclasses.replace(layer, pool=Pool.NONE) for layer in settings.convolutions)
    settings = dataclasses.replace(settings, convolutions=layers)
    try:
        expected = 3 * counted(settings, (2, 9, 8), 3)
    except BadInputError:
        assume(False)  # a feature map vanishes
    assert training_flops(settings, (2, 9, 8), 3) == expected


@pytest.mark.parametrize(("size", "exactly"), [(8, True), (9, False)])
def test_pooling_may_drop_a_row_of_pixels_that_the_filters_passed_over(size: int, exactly: bool) -> None:
    layer = ConvLayer(filters=4, filter_size=3, stride=1, pool=Pool.MAX)
    settings = dataclasses.replace(MLP, family=Family.CNN, convolutions=(layer,), neurons=())
    mine, theirs = training_flops(settings, (1, size, size), 3), 3 * counted(settings, (1, size, size), 3)
    assert (mine == theirs) is exactly
    assert 0.75 * theirs < mine <= theirs
