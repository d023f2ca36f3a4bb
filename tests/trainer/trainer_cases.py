"""Settings, data and trainers that the tests of the trainer share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from trainer.data.dataset import Preprocessing, Split, Task
from trainer.device_data import DeviceData, to_device
from trainer.settings import Activation, ConvLayer, Family, OptimizerKind, Padding, Pool, Schedule, Settings
from trainer.work import EpochResult, Metric, SegmentResult, TrialWork
from trainer.worker import Trainer

MLP = Settings(
    family=Family.MLP,
    neurons=(16, 12),
    activation=Activation.RELU,
    learning_rate=0.01,
    optimizer=OptimizerKind.ADAM,
    momentum=0.9,
    weight_decay=0.0,
    dropout=0.0,
    batch_norm=False,
    batch_size=32,
    schedule=Schedule.CONSTANT,
)
CNN = dataclasses.replace(
    MLP,
    family=Family.CNN,
    convolutions=(
        ConvLayer(filters=6, filter_size=3, stride=1, pool=Pool.MAX),
        ConvLayer(filters=8, filter_size=3, stride=1, pool=Pool.NONE),
    ),
)
EVERYTHING_RANDOM = dataclasses.replace(MLP, dropout=0.3, batch_norm=True, schedule=Schedule.COSINE)


def settings_of(base: Settings = MLP, **changes: Any) -> Settings:
    return dataclasses.replace(base, **changes)


conv_layers = st.builds(
    ConvLayer,
    filters=st.integers(1, 5),
    filter_size=st.integers(1, 5),
    stride=st.integers(1, 3),
    pool=st.sampled_from(Pool),
)

any_settings = st.builds(
    Settings,
    family=st.just(Family.MLP),
    neurons=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    padding=st.sampled_from(Padding),
    activation=st.sampled_from(Activation),
    learning_rate=st.floats(1e-4, 0.1),
    optimizer=st.sampled_from(OptimizerKind),
    momentum=st.floats(0, 0.95),
    weight_decay=st.floats(0, 0.3),
    dropout=st.just(0.0),
    batch_norm=st.booleans(),
    batch_size=st.integers(2, 20),
    schedule=st.sampled_from(Schedule),
)
any_cnn_settings = st.builds(
    lambda settings, layers: dataclasses.replace(settings, family=Family.CNN, convolutions=tuple(layers)),
    any_settings,
    st.lists(conv_layers, min_size=1, max_size=3),
)


def split(inputs: npt.NDArray[Any], targets: npt.NDArray[Any]) -> Split:
    return Split(inputs=inputs, targets=targets, rows=np.arange(len(targets)))


def blobs(rows: int = 130, features: int = 5, classes: int = 3, seed: int = 0) -> Split:
    """Overlapping clouds of points, one a class."""
    rng = np.random.default_rng(seed)
    targets = np.arange(rows) % classes
    centres = np.random.default_rng(99).normal(size=(classes, features))
    return split((centres[targets] + rng.normal(size=(rows, features))).astype(np.float32), targets.astype(np.int64))


def table_trainer(train: Split | None = None, validation: Split | None = None) -> Trainer:
    train, validation = train or blobs(), validation or blobs(60, seed=1)
    return Trainer(
        train,
        validation,
        Preprocessing(kind="table", task="classification", classes=("a", "b", "c")),
        Task.CLASSIFICATION,
        train.inputs.shape[1:],
        3,
        device="cpu",
    )


def device_data(
    train: Split | None = None,
    validation: Split | None = None,
    task: Task = Task.CLASSIFICATION,
    dtype: torch.dtype = torch.float32,
) -> DeviceData:
    """Inputs that need no scaling, on the CPU; `blobs` where none are given."""
    train, validation = train or blobs(), validation or blobs(60, seed=1)
    cpu = torch.device("cpu")
    return DeviceData(
        train=to_device(train, cpu, lambda inputs: inputs, dtype),
        validation=to_device(validation, cpu, lambda inputs: inputs, dtype),
        task=task,
        input_shape=train.inputs.shape[1:],
        outputs=3 if task is Task.CLASSIFICATION else 1,
        target_mean=0.0,
        target_std=1.0,
        device=cpu,
        dtype=dtype,
    )


DIGITS_MEAN, DIGITS_STD = 4.884, 6.017


def digits(first: int, last: int) -> Split:
    images, labels = load_digits(return_X_y=True)
    return split(images[first:last].astype(np.uint8).reshape(-1, 1, 8, 8), labels[first:last].astype(np.int64))


def digits_trainer(train: Split | None = None) -> Trainer:
    preprocessing = Preprocessing(
        kind="image",
        task="classification",
        shape=(1, 8, 8),
        mean=(DIGITS_MEAN,),
        std=(DIGITS_STD,),
        classes=tuple(range(10)),
    )
    train = train or digits(0, 1200)
    return Trainer(train, digits(1200, 1500), preprocessing, Task.CLASSIFICATION, (1, 8, 8), 10, device="cpu")


def work_of(settings: Settings = MLP, **changes: Any) -> TrialWork:
    work = TrialWork(trial=0, settings=settings, seed=7, metric=Metric.ERROR, epochs=4, until=4)
    return dataclasses.replace(work, **changes)


def train(trainer: Trainer, work: TrialWork, stopped: Callable[[], bool] = lambda: False) -> SegmentResult:
    return train_all(trainer, [work], stopped)[0]


def train_all(
    trainer: Trainer, works: Sequence[TrialWork], stopped: Callable[[], bool] = lambda: False
) -> list[SegmentResult]:
    return trainer.train(works, stopped, on_epoch=lambda trial, epoch: None)


def without_times(epochs: tuple[EpochResult, ...]) -> list[EpochResult]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in epochs]


def weights_of(result: SegmentResult) -> dict[str, npt.NDArray[np.generic]]:
    assert result.weights is not None
    return result.weights
