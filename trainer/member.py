"""One trial while it learns: its weights as one vector, its optimizer, its random state, its best network so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neurosweep.errors import BadInputError
from trainer.device_data import DeviceData
from trainer.networks import build
from trainer.optimizers import Optimizer, learning_rate
from trainer.precision import Precision
from trainer.settings import Settings
from trainer.work import Metric, TrialWork

BITS = 16
"""Random bits for each neuron that dropout may zero: its probability is kept to 1 / 65,536."""

LANES = 64 // BITS
"""Neurons for each number of 64 bits that is drawn."""


@dataclass(frozen=True)
class Best:
    """The network of the epoch with the smallest validation metric; of equals, the earliest."""

    epoch: int
    validation: float
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Norm:
    """A batch norm's parts: views of its scale and shift in the weights, and its running figures, (features,) each."""

    scale: Tensor
    shift: Tensor
    scale_gradient: Tensor
    shift_gradient: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Dense:
    """A dense layer's weights, (neurons, inputs + 1): the last column is the bias. Without a bias there is none.

    Attributes:
        norm: The batch norm behind it, which does without the bias.
    """

    weights: Tensor
    gradient: Tensor
    inputs: int
    norm: Norm | None

    @property
    def neurons(self) -> int:
        return len(self.weights)

    @property
    def bias(self) -> bool:
        return self.weights.shape[1] > self.inputs


@dataclass(frozen=True)
class Convolution:
    """A convolution's weights, (filters, channels, height, width).

    Attributes:
        bias: (filters,), and its gradient; None where a batch norm follows.
    """

    weights: Tensor
    gradient: Tensor
    bias: tuple[Tensor, Tensor] | None
    norm: Norm | None


class Member:
    """A trial with all that a pause has to keep.

    The initial weights, the order of the rows and the dropout are drawn from three generators seeded from the trial's
    seed, the first two on the CPU: the same trial gives the same numbers alone, in a pack, or in segments.

    Args:
        epochs: The trial's last epoch, which the learning-rate schedule spans.
        precision: What the products are computed in while training.

    Raises:
        BadInputError: The network can't be built, or can't learn from batches of one row.

    Attributes:
        weights: Every trainable number, (count,).
        convolutions: The convolutional layers, as views of `weights`.
        dense: The dense layers, the output layer last, as views of `weights`.
        parts: The network's state under the names that `build`'s network gives it: views of `weights`, and the running
            figures of its batch norms.
        generators: Of the order of the rows and of the dropout, whose own is on the device.
        epoch: The last epoch that is done, counted from 1.
        steps: Batches that were learned from.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        metric: Metric,
        epochs: int,
        data: DeviceData,
        precision: Precision = Precision.FLOAT32,
    ) -> None:
        if settings.batch_norm and min(settings.batch_size, len(data.train)) < 2:
            raise BadInputError("batch_norm needs batches of at least 2 rows; use a larger batch_size, or none of it")
        self.settings, self.seed, self.metric, self.epochs = settings, seed, metric, epochs
        self.precision = precision
        self.device = data.device
        weight_seed, order_seed, dropout_seed = np.random.SeedSequence(seed).spawn(3)
        self.generators = {
            "order": _generator(order_seed, torch.device("cpu")),
            "dropout": _generator(dropout_seed, data.device),
        }
        network = build(
            settings, data.input_shape, data.outputs, generator=_generator(weight_seed, torch.device("cpu"))
        )
        count = sum(parameter.numel() for parameter in network.parameters())
        self.weights = torch.empty(count, dtype=data.dtype, device=data.device)
        self.optimizer = Optimizer(settings, self.weights)
        self.convolutions: list[Convolution] = []
        self.dense: list[Dense] = []
        self.steps = 0
        self.parts: dict[str, Tensor] = {}
        self._cut(network)
        for name, tensor in network.state_dict().items():
            if name in self.parts:
                self.parts[name].copy_(tensor)
        self.epoch = 0
        self.best: Best | None = None

    @property
    def hidden_neurons(self) -> int:
        """Of all dense layers but the output."""
        return sum(layer.neurons for layer in self.dense[:-1])

    def is_of(self, work: TrialWork) -> bool:
        """Whether this is the work's very trial, and not another one of the same number."""
        mine = self.settings, self.seed, self.metric, self.epochs
        return mine == (work.settings, work.seed, work.metric, work.epochs)

    def begin_epoch(self) -> None:
        self.epoch += 1
        self.optimizer.set_rate(learning_rate(self.settings, self.epoch, self.epochs))

    def draw_order(self, rows: int) -> Tensor:
        """The order of the train split's rows in the next epoch, (rows,) on the CPU."""
        return torch.randperm(rows, generator=self.generators["order"])

    def draw_bits(self, steps: int, numbers: int) -> Tensor:
        """Random bits for dropout, int16 of shape (steps, numbers); each step begins with a fresh draw."""
        drawn = torch.empty(steps, -(-numbers // LANES), dtype=torch.int64, device=self.device)
        drawn.random_(-(2**63), None, generator=self.generators["dropout"])
        return drawn.view(torch.int16)[:, :numbers]

    def note(self, validation: float) -> None:
        """Keeps the network where its validation metric is the smallest so far."""
        if self.best is None or validation < self.best.validation:
            self.best = Best(self.epoch, validation, {name: tensor.clone() for name, tensor in self.state().items()})

    def back_to_best(self) -> None:
        if self.best is not None:
            for name, tensor in self.parts.items():
                tensor.copy_(self.best.weights[name])

    def state(self) -> dict[str, Tensor]:
        """All that `build`'s network calls its state: `parts`, and how many batches it has learned from."""
        return with_batches_tracked(self.parts, self.steps)

    def learned(self) -> dict[str, Tensor]:
        """All tensors that an epoch changes, by name: the tensors themselves."""
        running = {name: tensor for name, tensor in self.parts.items() if ".running_" in name}
        optimizer = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()}
        return {"weights": self.weights, **running, **optimizer}

    def _cut(self, network: nn.Sequential) -> None:
        """Lays the layers out in the vector, one behind the other."""
        modules = dict(network.named_children())
        start = 0

        def take(*shape: int) -> tuple[Tensor, Tensor]:
            nonlocal start
            begin, start = start, start + math.prod(shape)
            gradient = self.optimizer.gradient
            return self.weights[begin:start].view(shape), gradient[begin:start].view(shape)

        def norm(name: str) -> Norm | None:
            module = modules.get(f"{name}_norm")
            if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                return None
            (scale, scale_gradient), (shift, shift_gradient) = take(module.num_features), take(module.num_features)
            running = [torch.empty_like(scale) for _ in range(2)]
            parts = {"weight": scale, "bias": shift, "running_mean": running[0], "running_var": running[1]}
            self.parts.update({f"{name}_norm.{part}": tensor for part, tensor in parts.items()})
            return Norm(scale, shift, scale_gradient, shift_gradient, *running)

        for name, module in modules.items():
            if isinstance(module, nn.Linear):
                inputs, bias = module.in_features, module.bias is not None
                weights, gradient = take(module.out_features, inputs + bias)
                self.parts[f"{name}.weight"] = weights[:, :inputs]
                if bias:
                    self.parts[f"{name}.bias"] = weights[:, inputs]
                self.dense.append(Dense(weights, gradient, inputs, norm(name)))
            elif isinstance(module, nn.Conv2d):
                weights, gradient = take(*module.weight.shape)
                self.parts[f"{name}.weight"] = weights
                bias_pair = take(len(weights)) if module.bias is not None else None
                if bias_pair is not None:
                    self.parts[f"{name}.bias"] = bias_pair[0]
                self.convolutions.append(Convolution(weights, gradient, bias_pair, norm(name)))


def with_batches_tracked(state: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Adds what PyTorch's batch norms count as well: the batches."""
    norms = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {**state, **{f"{norm}num_batches_tracked": torch.tensor(steps) for norm in norms}}


def _generator(seed: np.random.SeedSequence, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0]))
