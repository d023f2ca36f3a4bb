"""Image models for the tests of their page: networks with drawn weights, and what PyTorch makes of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from search.explain.image_page import image_page
from search.insight.winner import make_trainer
from trainer.data.dataset import DataRequest, Dataset, Preprocessing, Split, Task
from trainer.data.load import load
from trainer.device_data import make_scale
from trainer.networks import build, load_arrays, to_arrays
from trainer.settings import ConvLayer, Family, Pool, Settings
from trainer.work import Metric

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]


def drawn_weights(settings: Settings, shape: tuple[int, ...], outputs: int, seed: int = 0) -> dict[str, Array]:
    """Weights of a network that has learnt nothing, with biases and batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    network = build(settings, shape, outputs, generator)
    for name, tensor in network.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.3, generator=generator)
        elif "norm" in name and name.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 2, generator=generator)
    return {name: array.copy() for name, array in to_arrays(network.state_dict()).items()}


def image_data(inputs: Array, targets: Array, classes: int) -> Dataset:
    """The same few images in each split; a regression where there are no classes."""
    part = Split(inputs=inputs, targets=targets, rows=np.arange(100, 100 + len(inputs)))
    channels = range(inputs.shape[1])
    preprocessing = Preprocessing(
        kind="image",
        task="classification" if classes else "regression",
        shape=inputs.shape[1:],
        mean=tuple(float(inputs[:, channel].mean()) for channel in channels),
        std=tuple(float(inputs[:, channel].std()) for channel in channels),
        classes=tuple(f"<{number}>" for number in range(classes)),
        target_mean=0.0 if classes else 20.0,
        target_std=1.0 if classes else 3.0,
    )
    return Dataset(
        task=Task.CLASSIFICATION if classes else Task.REGRESSION,
        train=part,
        validation=part,
        test=part,
        preprocessing=preprocessing,
        input_shape=inputs.shape[1:],
        outputs=classes or 1,
        split_hash="",
        example=inputs[:3],
    )


def digits() -> Dataset:
    return load(DataRequest(source="digits"))


def page_of(settings: Settings, weights: dict[str, Array], dataset: Dataset) -> tuple[str, Array]:
    """The page as the program writes it, and the network's answers for the test split."""
    metric = Metric.ERROR if dataset.task is Task.CLASSIFICATION else Metric.MSE
    trainer = make_trainer(dataset)
    result = trainer.test(settings, weights, metric, dataset.test)
    html = image_page(
        study="tiny",
        metric=str(metric),
        settings=settings,
        weights=weights,
        dataset=dataset,
        split="test",
        outputs=result.outputs,
        truth=result.truth,
    )
    return html, result.outputs


def torch_results(settings: Settings, weights: dict[str, Array], dataset: Dataset, pixels: Array) -> dict[str, Array]:
    """What each module of PyTorch's network makes of one image, by the module's name; the scaled image as ``input``."""
    network = build(settings, dataset.input_shape, dataset.outputs, torch.Generator())
    load_arrays(network, weights)
    found: dict[str, Array] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        return lambda module, given, result: found.update({name: result.detach().numpy().ravel()})

    for name, module in network.named_children():
        module.register_forward_hook(keep(name))
    with torch.inference_mode():
        scaled = make_scale(dataset.preprocessing)(torch.from_numpy(np.array(pixels)))
        network.eval()(scaled.reshape(1, *dataset.input_shape))
    return {"input": scaled.numpy().ravel(), **found}


def field_by_autograd(settings: Settings, shape: Shape, name: str, row: int, column: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the pixels on which a neuron of the layer depends.

    Every weight is 1 and all pooling takes means, so that no dependence can cancel out.
    """
    layers = tuple(
        dataclasses.replace(layer, pool=Pool.NONE if layer.pool is Pool.NONE else Pool.AVG, filters=1)
        for layer in settings.convolutions
    )
    plain = dataclasses.replace(settings, convolutions=layers, neurons=(), batch_norm=False)
    value = image = torch.ones(1, *shape, requires_grad=True)
    for each, module in build(plain, shape, 1, torch.Generator()).named_children():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Conv2d | nn.AvgPool2d):
            value = module(value)
        if each == name:
            break
    (gradient,) = torch.autograd.grad(value[0, 0, row, column], image)
    rows, columns = (np.flatnonzero(gradient[0, 0].abs().sum(dim=axis).numpy()) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def cnn(settings: Settings, *layers: ConvLayer) -> Settings:
    return dataclasses.replace(settings, family=Family.CNN, convolutions=layers)
