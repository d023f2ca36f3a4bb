"""Training as one would write it by hand, with `torch.nn`, autograd and `torch.optim`; none of the trainer's code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.settings import Activation, OptimizerKind, Padding, Pool, Schedule, Settings

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.RELU: nn.ReLU,
    Activation.TANH: nn.Tanh,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.ELU: nn.ELU,
    Activation.SIGMOID: nn.Sigmoid,
}
POOLS: dict[Pool, Callable[[], nn.Module]] = {
    Pool.NONE: nn.Identity,
    Pool.MAX: lambda: nn.MaxPool2d(2),
    Pool.AVG: lambda: nn.AvgPool2d(2),
}


class Masked(nn.Module):
    """Dropout with masks that are given: one for each step, (neurons, rows of the batch)."""

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self.masks = iter(masks)

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self.masks).t() if self.training else x


@dataclass(frozen=True)
class History:
    """Averages over the rows of each epoch, and the weights at the end, by name."""

    train: list[float]
    validation: list[float]
    weights: dict[str, Tensor]


def network(settings: Settings, shape: tuple[int, ...], outputs: int, masks: Sequence[Sequence[Tensor]]) -> nn.Module:
    """With the masks of each hidden dense layer, where there is dropout. Layers have the names of the product's."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    normed, activation = settings.batch_norm, ACTIVATIONS[settings.activation]
    channels = shape[0]
    for number, layer in enumerate(settings.convolutions, start=1):
        name, padding = f"conv{number}", layer.filter_size // 2 if settings.padding is Padding.SAME else 0
        parts[name] = nn.Conv2d(channels, layer.filters, layer.filter_size, layer.stride, padding, bias=not normed)
        if normed:
            parts[f"{name}_norm"] = nn.BatchNorm2d(layer.filters)
        parts[f"{name}_activation"], parts[f"{name}_pool"] = activation(), POOLS[layer.pool]()
        channels = layer.filters
    parts["flatten"] = nn.Flatten()
    inputs = nn.Sequential(parts)(torch.zeros(2, *shape)).shape[1]
    for number, neurons in enumerate(settings.neurons, start=1):
        name = f"dense{number}"
        parts[name] = nn.Linear(inputs, neurons, bias=not normed)
        if normed:
            parts[f"{name}_norm"] = nn.BatchNorm1d(neurons)
        parts[f"{name}_activation"] = activation()
        if settings.dropout:
            parts[f"{name}_dropout"] = Masked(masks[number - 1])
        inputs = neurons
    parts["output"] = nn.Linear(inputs, outputs)
    return nn.Sequential(parts)


def optimizer_of(settings: Settings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, foreach=False)
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, foreach=False)
        case OptimizerKind.ADAMW:
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, foreach=False)


def train_plainly(
    settings: Settings,
    start: Mapping[str, Tensor],
    orders: Sequence[Tensor],
    masks: Sequence[Sequence[Tensor]],
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    outputs: int,
) -> History:
    """Trains from the weights `start` through one epoch for each order of the rows; one output is a regression."""
    (inputs, targets), dtype = train, train[0].dtype
    model = network(settings, tuple(inputs.shape[1:]), outputs, masks).to(dtype)
    model.load_state_dict(start)
    optimizer = optimizer_of(settings, list(model.parameters()))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(orders))

    def loss_of(rows: Tensor, truth: Tensor) -> Tensor:
        answers = model(rows)
        if outputs == 1:
            return nn.functional.mse_loss(answers.squeeze(1), truth)
        return nn.functional.cross_entropy(answers, truth)

    history = History([], [], {})
    for order in orders:
        model.train()
        total, learned = 0.0, 0
        for rows in torch.split(order, settings.batch_size):
            if settings.batch_norm and len(rows) == 1:
                continue  # a single row has no variance
            optimizer.zero_grad()
            loss = loss_of(inputs[rows], targets[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            total, learned = total + loss.item() * len(rows), learned + len(rows)
        history.train.append(total / learned)
        if settings.schedule is Schedule.COSINE:
            scheduler.step()
        model.eval()
        with torch.no_grad():
            history.validation.append(loss_of(*validation).item())
    history.weights.update(model.state_dict())
    return history
