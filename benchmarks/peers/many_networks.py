"""Many networks in plain PyTorch: one at a time, so from CUDA graphs, and equal ones stacked by `torch.func`.

Needs PyTorch alone. Each way trains for whole epochs of full batches with Adam, and returns the last epoch's mean loss
of each network, so that nothing is skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from trainer.settings import Activation, Padding, Pool, Settings

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.RELU: nn.ReLU,
    Activation.TANH: nn.Tanh,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.ELU: nn.ELU,
    Activation.SIGMOID: nn.Sigmoid,
}


def build(settings: Settings, shape: tuple[int, ...], classes: int, device: str) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels, normed = shape[0], settings.batch_norm
    for layer in settings.convolutions:
        padding = layer.filter_size // 2 if settings.padding is Padding.SAME else 0
        parts.append(nn.Conv2d(channels, layer.filters, layer.filter_size, layer.stride, padding))
        parts += [nn.BatchNorm2d(layer.filters)] if normed else []
        parts.append(ACTIVATIONS[settings.activation]())
        if layer.pool is not Pool.NONE:
            parts.append((nn.MaxPool2d if layer.pool is Pool.MAX else nn.AvgPool2d)(2))
        channels = layer.filters
    parts.append(nn.Flatten())
    width = nn.Sequential(*parts)(torch.zeros(2, *shape)).shape[1]
    for neurons in settings.neurons:
        parts.append(nn.Linear(width, neurons))
        parts += [nn.BatchNorm1d(neurons)] if normed else []
        parts.append(ACTIVATIONS[settings.activation]())
        width = neurons
    return nn.Sequential(*parts, nn.Linear(width, classes)).to(device)


def batches(rows: int, size: int, device: str) -> list[Tensor]:
    """Full ones only, in a new order."""
    return [batch for batch in torch.split(torch.randperm(rows, device=device), size) if len(batch) == size]


def one_at_a_time(
    networks: Sequence[nn.Module], rates: Sequence[float], size: int, inputs: Tensor, targets: Tensor, epochs: int
) -> list[float]:
    losses = []
    for network, rate in zip(networks, rates, strict=True):
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for _ in range(epochs):
            total = torch.zeros((), device=inputs.device)
            order = batches(len(inputs), size, str(inputs.device))
            for rows in order:
                optimizer.zero_grad()
                loss = cross_entropy(network(inputs[rows]), targets[rows])
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.detach()
        losses.append(total.item() / len(order))
    return losses


def stacked(
    networks: Sequence[nn.Module], rates: Sequence[float], size: int, inputs: Tensor, targets: Tensor, epochs: int
) -> list[float]:
    """Equal networks without batch norm, at the first one's rate: `torch.optim` takes one for all."""
    weights, buffers = stack_module_state(list(networks))
    assert not buffers
    skeleton = copy.deepcopy(networks[0]).to("meta")
    optimizer = torch.optim.Adam(weights.values(), lr=rates[0])

    def outputs_of(one: dict[str, Tensor], rows: Tensor) -> Tensor:
        found: Tensor = functional_call(skeleton, one, (rows,))
        return found

    together: Callable[..., Tensor] = vmap(outputs_of)
    for _ in range(epochs):
        total = torch.zeros(len(networks), device=inputs.device)
        order = [batches(len(inputs), size, str(inputs.device)) for _ in networks]
        for every in zip(*order, strict=True):
            rows = torch.stack(every)
            optimizer.zero_grad()
            outputs = together(weights, inputs[rows])
            loss = cross_entropy(outputs.flatten(end_dim=1), targets[rows].flatten(), reduction="none")
            means = loss.view(len(networks), size).mean(dim=1)
            torch.autograd.backward(means.sum())
            optimizer.step()
            total += means.detach()
    return (total / len(order[0])).tolist()


def one_at_a_time_from_graphs(
    networks: Sequence[nn.Module], rates: Sequence[float], size: int, inputs: Tensor, targets: Tensor, epochs: int
) -> list[float]:
    """On a GPU: a step of each network is captured once and replayed."""
    losses = []
    for network, rate in zip(networks, rates, strict=True):
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, capturable=True)
        now, truth = inputs[:size].clone(), targets[:size].clone()

        def step(network: nn.Module = network, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(network(now), truth)  # noqa: B023 - called before the next network's turn
            torch.autograd.backward(loss)
            optimizer.step()
            return loss.detach()

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()
        for _ in range(epochs):
            total = torch.zeros((), device=inputs.device)
            order = batches(len(inputs), size, str(inputs.device))
            for rows in order:
                torch.index_select(inputs, 0, rows, out=now)
                torch.index_select(targets, 0, rows, out=truth)
                graph.replay()
                total += loss
        losses.append(total.item() / len(order))
    return losses
