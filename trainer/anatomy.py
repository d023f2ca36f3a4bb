"""What a network is made of, layer by layer, by arithmetic alone: shapes, receptive fields, weights and products.
Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from neurosweep.errors import BadInputError
from trainer.settings import Family, Pool, Settings
from trainer.shapes import check_passable, convolved_size, zero_padding

NUMBER = 4
"""Bytes of a float32."""

POOLED = 2
"""Height, width and stride of every pooling."""


class Kind(StrEnum):
    CONV = "conv"
    NORM = "norm"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Window:
    """What slides over a feature map: a filter, or a pooling's square. All in pixels.

    Attributes:
        size: Height and width.
        padding: Rows and columns of zeros on each side of the map.
    """

    size: int
    stride: int
    padding: int


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """The square of the image that one neuron of a feature map sees, in pixels.

    The neuron in row r sees the rows ``offset + r * jump`` to ``offset + r * jump + size - 1`` of the image, and so for
    columns; those outside of the image are zeros of the padding.
    """

    size: int = 1
    jump: int = 1
    offset: int = 0

    def behind(self, window: Window) -> ReceptiveField:
        """That of the map which a window makes of this one (Araujo, Norris & Sim 2019, 'Computing receptive fields of
        convolutional neural networks', distill.pub, eq. 1 to 3)."""
        return ReceptiveField(
            size=self.size + (window.size - 1) * self.jump,
            jump=self.jump * window.stride,
            offset=self.offset - window.padding * self.jump,
        )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer that changes shapes or has weights. Shapes are those of one row: (numbers,) or (maps, height, width).

    Attributes:
        name: As in the network itself (`trainer.networks.build`): ``conv1``, ``conv1_pool``, ``dense1``, ``output``.
        bias: Whether each filter or neuron has one.
        window: None for a layer that has no filter.
        sees: None for a layer whose neurons see the whole row.
    """

    name: str
    kind: Kind
    input: tuple[int, ...]
    output: tuple[int, ...]
    bias: bool = False
    window: Window | None = None
    sees: ReceptiveField | None = None

    @property
    def feature_maps(self) -> int | None:
        """How many there are; None where the output is no image."""
        return self.output[0] if len(self.output) == 3 else None

    @property
    def shared_weights_per_channel(self) -> int | None:
        """Weights of one filter for one channel of the input: the neurons of a map share them. Convolutions only."""
        return self.window.size**2 if self.window and self.kind is Kind.CONV else None

    @property
    def shared_weights_per_filter(self) -> int | None:
        """The same for all channels together, the bias apart."""
        return self.input[0] * self.window.size**2 if self.window and self.kind is Kind.CONV else None

    @property
    def dense_weights_per_neuron(self) -> int | None:
        """Weights of one neuron that sees all of the layer's input, its bias apart; None for norms and pooling."""
        return math.prod(self.input) if self.kind in (Kind.CONV, Kind.DENSE) else None

    @property
    def dense_weights(self) -> int | None:
        """Weights of the whole layer if each of its neurons saw all of its input, biases included."""
        each = self.dense_weights_per_neuron
        return None if each is None else math.prod(self.output) * (each + self.bias)

    @property
    def weights(self) -> int:
        """Trainable numbers, biases included. A batch norm has a scale and a shift for each map or neuron."""
        if self.kind is Kind.NORM:
            return 2 * self.output[0]
        return self.output[0] * (self._seen + self.bias) if self._seen else 0

    @property
    def multiply_adds(self) -> int:
        """Products of a weight and a number, each with its addition, for one row on its way forth. What norms,
        activations and pooling add to that is not counted."""
        return math.prod(self.output) * self._seen

    @property
    def activation_memory(self) -> int:
        """Bytes of the layer's output for one row, in float32."""
        return NUMBER * math.prod(self.output)

    @property
    def _seen(self) -> int:
        """How many numbers of its input each neuron weighs."""
        if self.kind is Kind.DENSE:
            return self.input[0]
        return self.shared_weights_per_filter or 0


def layers_of(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> tuple[Layer, ...]:
    """The layers in the order in which a row passes them.

    Args:
        input_shape: (features,) or (channels, height, width).

    Raises:
        BadInputError: A CNN for something other than images, or one that an image can't pass.
    """
    layers: list[Layer] = []
    width = math.prod(input_shape)
    if settings.family is Family.CNN:
        layers += _convolutions(settings, input_shape)
        width = math.prod(layers[-1].output) if layers else width
    for number, neurons in enumerate(settings.neurons, start=1):
        name, shape, bias = f"dense{number}", (neurons,), not settings.batch_norm
        layers.append(Layer(name=name, kind=Kind.DENSE, input=(width,), output=shape, bias=bias))
        if settings.batch_norm:
            layers.append(Layer(name=f"{name}_norm", kind=Kind.NORM, input=shape, output=shape))
        width = neurons
    layers.append(Layer(name="output", kind=Kind.DENSE, input=(width,), output=(outputs,), bias=True))
    return tuple(layers)


def _convolutions(settings: Settings, input_shape: tuple[int, ...]) -> Iterator[Layer]:
    if len(input_shape) != 3:
        raise BadInputError(f"a cnn needs images, but a row of this data has the shape {input_shape}; use model: mlp")
    check_passable(settings.convolutions, settings.padding, *input_shape[1:])
    shape: tuple[int, ...] = input_shape
    sees = ReceptiveField()
    for number, layer in enumerate(settings.convolutions, start=1):
        name, bias = f"conv{number}", not settings.batch_norm
        window = Window(size=layer.filter_size, stride=layer.stride, padding=zero_padding(layer, settings.padding))
        sees = sees.behind(window)
        sides = [convolved_size(side, layer, settings.padding) for side in shape[1:]]
        convolved: tuple[int, ...] = (layer.filters, *sides)
        yield Layer(name=name, kind=Kind.CONV, input=shape, output=convolved, bias=bias, window=window, sees=sees)
        if settings.batch_norm:
            yield Layer(name=f"{name}_norm", kind=Kind.NORM, input=convolved, output=convolved, sees=sees)
        shape = convolved
        if layer.pool is not Pool.NONE:
            window = Window(size=POOLED, stride=POOLED, padding=0)
            sees = sees.behind(window)
            shape = (layer.filters, *(side // POOLED for side in sides))
            kind = Kind.MAX_POOL if layer.pool is Pool.MAX else Kind.AVG_POOL
            yield Layer(name=f"{name}_pool", kind=kind, input=convolved, output=shape, window=window, sees=sees)
