"""Digits MLPs in plain PyTorch, as a practitioner writes them: the training function that both peers call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
}


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


def build(params: dict[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 64
    for index in range(1, params["layers"] + 1):
        neurons = params[f"neurons_{index}"]
        layers.append(nn.Linear(width, neurons))
        if params["batch_norm"]:
            layers.append(nn.BatchNorm1d(neurons))
        layers.append(ACTIVATIONS[params["activation"]]())
        if params["dropout"] > 0:
            layers.append(nn.Dropout(params["dropout"]))
        width = neurons
    return nn.Sequential(*layers, nn.Linear(width, 10))


def optimizer_for(network: nn.Module, params: dict[str, Any]) -> torch.optim.Optimizer:
    rate, decay = params["learning_rate"], params["weight_decay"]
    if params["optimizer"] == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=params["momentum"], weight_decay=decay)
    if params["optimizer"] == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)


def train(params: dict[str, Any], data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int) -> list[float]:
    """Trains one network.

    Returns:
        The validation error after each epoch.
    """
    x_train, y_train, x_validation, y_validation = data
    network = build(params)
    optimizer = optimizer_for(network, params)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if params["schedule"] == "cosine" else None
    loss_function = nn.CrossEntropyLoss()
    errors = []
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
            errors.append((network(x_validation).argmax(1) != y_validation).float().mean().item())
    return errors
