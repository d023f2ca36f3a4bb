"""Networks in plain PyTorch, as a practitioner writes them: what all peers train with.

Settings go by the study file's names; those without `model` are an MLP's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

Data = tuple[Tensor, Tensor, Tensor, Tensor]
"""Inputs and classes of the train split, then of the validation split."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
}


def digits() -> Data:
    """Train and validation rows, in the same sizes as the study's: 1,257 and 270."""
    inputs, targets = load_digits(return_X_y=True)
    inputs = inputs.astype(np.float32)
    x_train, rest, y_train, y_rest = train_test_split(
        inputs, targets, train_size=1257, stratify=targets, random_state=0
    )
    x_validation, _, y_validation, _ = train_test_split(rest, y_rest, train_size=270, random_state=0)
    mean, std = x_train.mean(), x_train.std()
    return (
        torch.from_numpy((x_train - mean) / std),
        torch.from_numpy(y_train),
        torch.from_numpy((x_validation - mean) / std),
        torch.from_numpy(y_validation),
    )


def from_file(path: str | Path) -> Data:
    """What `benchmarks.product.save_splits` wrote."""
    with np.load(path) as arrays:
        x_train, y_train, x_validation, y_validation = (
            torch.from_numpy(arrays[name]) for name in ("x_train", "y_train", "x_validation", "y_validation")
        )
    return x_train, y_train, x_validation, y_validation


def build(params: dict[str, Any], input_shape: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = math.prod(input_shape)
    if params.get("model") == "cnn":
        layers = convolutions(params, input_shape[0])
        width = nn.Sequential(*layers).eval()(torch.zeros(1, *input_shape)).shape[1]
    elif len(input_shape) > 1:
        layers.append(nn.Flatten())
    for index in range(1, params["layers"] + 1):
        neurons = params[f"neurons_{index}"]
        layers.append(nn.Linear(width, neurons))
        if params["batch_norm"]:
            layers.append(nn.BatchNorm1d(neurons))
        layers.append(ACTIVATIONS[params["activation"]]())
        if params["dropout"] > 0:
            layers.append(nn.Dropout(params["dropout"]))
        width = neurons
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convolutions(params: dict[str, Any], channels: int) -> list[nn.Module]:
    """The convolutional part of a CNN, flattened."""
    layers: list[nn.Module] = []
    for index in range(1, params["conv_layers"] + 1):
        filters, size = params[f"filters_{index}"], params[f"filter_size_{index}"]
        padding = size // 2 if params["padding"] == "same" else 0
        layers.append(nn.Conv2d(channels, filters, size, stride=params[f"stride_{index}"], padding=padding))
        if params["batch_norm"]:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(ACTIVATIONS[params["activation"]]())
        if params[f"pool_{index}"] != "none":
            layers.append(nn.MaxPool2d(2) if params[f"pool_{index}"] == "max" else nn.AvgPool2d(2))
        channels = filters
    return [*layers, nn.Flatten()]


def optimizer_for(network: nn.Module, params: dict[str, Any]) -> torch.optim.Optimizer:
    rate, decay = params["learning_rate"], params["weight_decay"]
    if params["optimizer"] == "sgd":
        momentum = params.get("momentum", 0.9)
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    if params["optimizer"] == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)


def training(params: dict[str, Any], data: Data, epochs: int) -> Iterator[float]:
    """Trains one network.

    Yields:
        The validation error after each epoch.
    """
    x_train, y_train, x_validation, y_validation = data
    network = build(params, x_train.shape[1:], int(y_train.max()) + 1)
    optimizer = optimizer_for(network, params)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if params["schedule"] == "cosine" else None
    loss_function = nn.CrossEntropyLoss()
    for _ in range(epochs):
        network.train()
        for batch in torch.split(torch.randperm(len(x_train)), params["batch_size"]):
            if params["batch_norm"] and len(batch) == 1:
                continue
            optimizer.zero_grad()
            loss = loss_function(network(x_train[batch]), y_train[batch])
            loss.backward()
            optimizer.step()
        if schedule is not None:
            schedule.step()
        network.eval()
        with torch.no_grad():
            yield (network(x_validation).argmax(1) != y_validation).float().mean().item()


def train(params: dict[str, Any], data: Data, epochs: int) -> list[float]:
    """The validation error after each epoch of one network."""
    return list(training(params, data, epochs))


def warm_up(params: dict[str, Any], data: Data) -> None:
    """The first steps of a process are slower than the rest: an epoch of a few rows."""
    x_train, y_train, *validation = (part[:256] for part in data)
    classes = int(data[1].max()) + 1
    # Every class must be there, as the outputs are counted; which row has which does not matter here.
    y_train = torch.cat([torch.arange(classes), y_train[classes:]])
    train(params, (x_train, y_train, validation[0], validation[1]), 1)
