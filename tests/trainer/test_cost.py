"""The arithmetic of what training costs, beside PyTorch's own count."""

from __future__ import annotations

import hypothesis
import torch
from hypothesis import assume, given
from torch.utils.flop_counter import FlopCounterMode

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import any_cnn_settings, any_settings
from trainer.cost import training_flops
from trainer.networks import build
from trainer.settings import Settings


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
def test_a_cnns_products_are_counted_as_pytorch_counts_them(settings: Settings) -> None:
    try:
        expected = 3 * counted(settings, (2, 9, 8), 3)
    except BadInputError:
        assume(False)  # a feature map vanishes
    assert training_flops(settings, (2, 9, 8), 3) == expected
