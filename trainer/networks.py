"""From settings to a network: a plain `nn.Sequential` whose parts are named after their layer.

Shapes: inputs are (batch, features) or (batch, channels, height, width), outputs (batch, outputs): logits for
classification, the standardised prediction for regression.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from neurosweep.errors import BadInputError
from trainer.settings import Activation, ConvLayer, Family, Pool, Settings
from trainer.shapes import check_passable, feature_map_size, zero_padding

Weights = dict[str, npt.NDArray[np.generic]]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.RELU: nn.ReLU,
    Activation.TANH: nn.Tanh,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.ELU: nn.ELU,
    Activation.SIGMOID: nn.Sigmoid,
}

POOLS: dict[Pool, type[nn.Module]] = {Pool.MAX: nn.MaxPool2d, Pool.AVG: nn.AvgPool2d}

# 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1): the factor that keeps the variance from layer to layer (sqrt(2) for ReLU).
RECTIFIER_GAINS = {
    Activation.RELU: math.sqrt(2),
    Activation.LEAKY_RELU: math.sqrt(2 / (1 + 0.01**2)),
    Activation.GELU: 1.5335,
    Activation.SILU: 1.6765,
    Activation.ELU: 1.2452,
}
# 1 / f'(0): these are taken as linear around 0.
SATURATING_GAINS = {Activation.TANH: 1.0, Activation.SIGMOID: 4.0}


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014) that draws from a generator of its own.

    `nn.Dropout` draws from the process's global generator, where trials that take turns would disturb each other.
    """

    def __init__(self, probability: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.probability
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)


def build(
    settings: Settings,
    input_shape: tuple[int, ...],
    outputs: int,
    generator: torch.Generator,
    dropout_generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The network that the settings describe, on the CPU, its weights drawn from `generator`.

    A hidden layer is convolution or dense, batch norm, activation, then pooling or dropout.

    Args:
        input_shape: (features,) or (channels, height, width).
        dropout_generator: Where dropout draws from while training, on the device that will train.

    Raises:
        BadInputError: A CNN for something other than images, or a feature map that vanishes.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    # On the meta device nothing is drawn, so the global generator stays untouched; `initialise` fills the weights in.
    with torch.device("meta"):
        if settings.family is Family.CNN:
            width = _add_convolutions(layers, settings, input_shape)
        else:
            layers["flatten"] = nn.Flatten()
            width = math.prod(input_shape)
        for number, neurons in enumerate(settings.neurons, start=1):
            name = f"dense{number}"
            layers[name] = nn.Linear(width, neurons, bias=not settings.batch_norm)
            if settings.batch_norm:
                layers[f"{name}_norm"] = nn.BatchNorm1d(neurons)
            layers[f"{name}_activation"] = ACTIVATIONS[settings.activation]()
            if settings.dropout > 0:
                layers[f"{name}_dropout"] = Dropout(settings.dropout, dropout_generator)
            width = neurons
        layers["output"] = nn.Linear(width, outputs)
    network = nn.Sequential(layers).to_empty(device="cpu")
    initialise(network, settings.activation, generator)
    # Measured on a CPU: channels-last is 1.0 to 1.6 times as fast with pooling, 0.8 to 1.0 without. Convolutions follow
    # the layout of their weights, whatever that of the images.
    if any(layer.pool is not Pool.NONE for layer in settings.convolutions):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    return network


def _add_convolutions(layers: OrderedDict[str, nn.Module], settings: Settings, input_shape: tuple[int, ...]) -> int:
    """Append the convolutional part, flattened; returns how many numbers it hands to the dense part for each image."""
    if len(input_shape) != 3:
        raise BadInputError(f"a cnn needs images, but a row of this data has the shape {input_shape}; use model: mlp")
    channels, height, width = input_shape
    check_passable(settings.convolutions, settings.padding, height, width)
    for number, layer in enumerate(settings.convolutions, start=1):
        _add_convolution(layers, f"conv{number}", settings, layer, channels)
        channels = layer.filters
    layers["flatten"] = nn.Flatten()
    for layer in settings.convolutions:
        height, width = (feature_map_size(side, layer, settings.padding) for side in (height, width))
    return channels * height * width


def _add_convolution(
    layers: OrderedDict[str, nn.Module], name: str, settings: Settings, layer: ConvLayer, channels: int
) -> None:
    layers[name] = nn.Conv2d(
        channels,
        layer.filters,
        layer.filter_size,
        stride=layer.stride,
        padding=zero_padding(layer, settings.padding),
        bias=not settings.batch_norm,
    )
    if settings.batch_norm:
        layers[f"{name}_norm"] = nn.BatchNorm2d(layer.filters)
    layers[f"{name}_activation"] = ACTIVATIONS[settings.activation]()
    if layer.pool is not Pool.NONE:
        layers[f"{name}_pool"] = POOLS[layer.pool](2)


def initialise(network: nn.Sequential, activation: Activation, generator: torch.Generator) -> None:
    """Draw every weight anew from a normal distribution; biases become 0, batch norms the identity."""
    for name, module in network.named_children():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in, fan_out = module.weight[0].numel(), module.weight[:, 0].numel()
            std = fan_in**-0.5 if name == "output" else weight_std(activation, fan_in, fan_out)
            nn.init.normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()


def weight_std(activation: Activation, fan_in: int, fan_out: int) -> float:
    """Standard deviation of a hidden layer's initial weights.

    For the rectifiers He et al. (2015), 'Delving Deep into Rectifiers', eq. 10: gain / sqrt(fan_in), with ReLU's
    E[f(z)^2] = 1/2 replaced by that of each activation. For tanh and sigmoid Glorot & Bengio (2010), 'Understanding the
    difficulty of training deep feedforward neural networks', eq. 12: gain * sqrt(2 / (fan_in + fan_out)).

    Args:
        fan_in: Inputs of one neuron; for a convolution, input channels times the filter's pixels.
        fan_out: Neurons fed by one input; for a convolution, filters times the filter's pixels.
    """
    if activation in SATURATING_GAINS:
        return SATURATING_GAINS[activation] * math.sqrt(2 / (fan_in + fan_out))
    return RECTIFIER_GAINS[activation] / math.sqrt(fan_in)


def count_weights(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def to_arrays(state: Mapping[str, Tensor]) -> Weights:
    """A network's state as NumPy arrays, by name."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}


def load_arrays(network: nn.Module, weights: Weights) -> None:
    """Put weights into a network of the same settings.

    Raises:
        BadInputError: A weight is missing, is one too many, or has another shape.
    """
    try:
        network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=True)
    except RuntimeError as error:
        details = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise BadInputError(f"the weights must be those of the network that the settings describe: {details}") from None
