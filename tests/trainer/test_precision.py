"""When bfloat16 is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainer.trainer_cases import CNN, MLP, blobs, device_data, settings_of, split
from trainer.data.dataset import Split
from trainer.member import Member
from trainer.pack import Pack
from trainer.precision import Precision, PrecisionChoice, faster, shape_class
from trainer.settings import Settings
from trainer.work import Metric


@pytest.mark.parametrize(
    ("bfloat16_seconds", "expected"),
    [(0.5, Precision.BFLOAT16), (0.94, Precision.BFLOAT16), (0.97, Precision.FLOAT32), (2.0, Precision.FLOAT32)],
)
def test_bfloat16_must_be_clearly_faster(bfloat16_seconds: float, expected: Precision) -> None:
    assert faster(1.0, bfloat16_seconds) is expected


def test_each_class_of_shapes_is_measured_once_and_decided_by_its_own_times() -> None:
    measured: list[tuple[tuple[int, ...], Precision]] = []

    def measure(settings: Settings, precision: Precision) -> float:
        measured.append((settings.neurons, precision))
        large = max(settings.neurons) >= 256
        return {Precision.FLOAT32: 2.0, Precision.BFLOAT16: 1.0 if large else 3.0}[precision]

    choice = PrecisionChoice(can_win=True, measure=measure)
    large, alike, small = (settings_of(neurons=neurons) for neurons in ((256,), (270,), (16,)))
    assert choice.choose(large) is Precision.BFLOAT16
    assert choice.choose(small) is Precision.FLOAT32
    assert choice.choose(alike) is Precision.BFLOAT16
    assert measured == [
        ((256,), Precision.FLOAT32),
        ((256,), Precision.BFLOAT16),
        ((16,), Precision.FLOAT32),
        ((16,), Precision.BFLOAT16),
    ]


def test_nothing_is_measured_where_bfloat16_can_not_win() -> None:
    def measure(settings: Settings, precision: Precision) -> float:
        raise AssertionError("measured")

    assert PrecisionChoice(can_win=False, measure=measure).choose(MLP) is Precision.FLOAT32


def test_classes_differ_by_family_depth_width_and_batch() -> None:
    others = [CNN, settings_of(neurons=(16, 12, 9)), settings_of(neurons=(64, 12)), settings_of(batch_size=128)]
    assert len({shape_class(settings) for settings in [MLP, *others]}) == 5
    assert shape_class(settings_of(learning_rate=0.5)) == shape_class(MLP)


def trained_in(precision: Precision, settings: Settings) -> tuple[Member, list[float]]:
    """The member, and its validation loss after each of five epochs."""

    def images(rows: int, seed: int) -> Split:
        flat = blobs(rows, features=49, seed=seed)
        return split(flat.inputs.reshape(-1, 1, 7, 7), flat.targets)

    data = device_data(images(130, 0), images(60, 1))
    member = Member(settings, 3, Metric.LOG_LOSS, 5, data, precision)
    pack, found = Pack([member], data), []
    for _ in range(5):
        pack.train_epoch(lambda: None)
        found.append(pack.evaluate(data.validation, lambda: None)[0].loss)
    return member, found


@pytest.mark.parametrize("settings", [MLP, CNN])
def test_bfloat16_training_keeps_weights_in_float32_and_stays_close_to_float32(settings: Settings) -> None:
    settings = settings_of(settings, learning_rate=0.002)
    exact, exact_losses = trained_in(Precision.FLOAT32, settings)
    member, found = trained_in(Precision.BFLOAT16, settings)
    assert member.weights.dtype is torch.float32
    assert not torch.equal(exact.weights, member.weights)
    np.testing.assert_allclose(found, exact_losses, rtol=0.02)
