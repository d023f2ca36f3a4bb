"""The arithmetic of what training takes of memory, beside the process's peak."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import CNN, MLP, any_cnn_settings, any_settings, settings_of, split, train, work_of
from trainer.data.dataset import Preprocessing, Task
from trainer.evaluation import ROWS_AT_ONCE
from trainer.memory import DRAWN_STEPS, EVALUATED_ROWS, kept_copies, training_memory, weight_count
from trainer.networks import build, count_weights
from trainer.optimizers import Optimizer
from trainer.pack import MASK_STEPS
from trainer.settings import Activation, ConvLayer, OptimizerKind, Pool, Settings
from trainer.worker import Trainer

ROWS = 300

MEASURE = """
import json, sys
from tests.trainer.test_memory import measured
from trainer.settings import Settings
print(measured(Settings.from_json(json.loads(sys.argv[1])), tuple(json.loads(sys.argv[2]))))
"""


def measured(settings: Settings, input_shape: tuple[int, ...]) -> int:
    """Bytes that a worker which has trained before takes for two epochs of the trial."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, *input_shape)).astype(np.float32)
    data = split(inputs, (np.arange(ROWS) % 3).astype(np.int64))
    preprocessing = Preprocessing(kind="table", task="classification")  # nothing is to be scaled
    trainer = Trainer(data, data, preprocessing, Task.CLASSIFICATION, input_shape, 3, device="cpu")
    train(trainer, work_of(settings_of(CNN if len(input_shape) == 3 else MLP), epochs=1, until=1))
    memory = train(trainer, work_of(settings, epochs=2, until=2)).memory
    assert memory is not None
    return memory


def in_another_process(settings: Settings, input_shape: tuple[int, ...]) -> int:
    arguments = [json.dumps(settings.to_json()), json.dumps(input_shape)]
    ran = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def layers(*filters: int, size: int = 3, stride: int = 1, pool: Pool = Pool.NONE) -> tuple[ConvLayer, ...]:
    return tuple(ConvLayer(filters=each, filter_size=size, stride=stride, pool=pool) for each in filters)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to measure a peak anew")
@pytest.mark.parametrize(
    ("settings", "input_shape"),
    [
        (settings_of(neurons=(3000, 2000)), (64,)),
        (settings_of(neurons=(6000, 500), optimizer=OptimizerKind.SGD, momentum=0.0), (400,)),
        (settings_of(neurons=(1000,) * 8, batch_norm=True, dropout=0.3), (64,)),
        (settings_of(CNN, convolutions=layers(32, 32, pool=Pool.MAX), batch_norm=True), (1, 28, 28)),
        (settings_of(CNN, convolutions=layers(8, 16, size=5), activation=Activation.GELU), (3, 32, 32)),
    ],
)
def test_what_is_predicted_is_what_is_measured_within_a_factor_of_two(
    settings: Settings, input_shape: tuple[int, ...]
) -> None:
    predicted = training_memory(settings, input_shape, 3, ROWS)
    assert predicted > 50e6
    assert predicted / 2 < in_another_process(settings, input_shape) < predicted * 2


@hypothesis.settings(deadline=None)
@given(any_settings)
def test_a_dense_networks_weights_are_counted(settings: Settings) -> None:
    network = build(settings, (7,), 3, torch.Generator())
    assert weight_count(settings, (7,), 3) == count_weights(network)


@hypothesis.settings(deadline=None)
@given(any_cnn_settings)
def test_a_cnns_weights_are_counted(settings: Settings) -> None:
    try:
        network = build(settings, (2, 9, 8), 3, torch.Generator())
    except BadInputError:
        assume(False)  # a feature map vanishes
    assert weight_count(settings, (2, 9, 8), 3) == count_weights(network)


@given(any_settings)
def test_what_the_optimizer_keeps_is_counted(settings: Settings) -> None:
    optimizer = Optimizer(settings, torch.zeros(5))
    assert kept_copies(settings) == 2 + len(optimizer._moments)


def test_constants_that_can_not_be_imported_are_the_same() -> None:
    assert (EVALUATED_ROWS, DRAWN_STEPS) == (ROWS_AT_ONCE, MASK_STEPS)


@given(any_settings, st.integers(1, 50))
def test_a_larger_network_or_batch_takes_more(settings: Settings, more: int) -> None:
    wider = dataclasses.replace(settings, neurons=(*settings.neurons, more))
    assert training_memory(wider, (7,), 3, 1000) > training_memory(settings, (7,), 3, 1000)
    before, after = (training_memory(dataclasses.replace(settings, batch_size=size), (7,), 3, 1024) for size in (8, 64))
    assert before < after
