"""What memory training a network takes, by arithmetic alone: the search avoids by it what did not fit. Standard library
only.

It counts the numbers that `trainer.member`, `trainer.stack` and `trainer.trunk` keep, and the largest of what comes and
goes beside them. What libraries hold for themselves is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.anatomy import NUMBER, Kind, Layer, layers_of
from trainer.settings import Activation, ConvLayer, Family, OptimizerKind, Pool, Settings

INDEX = 8
"""Bytes of an index."""

EVALUATED_ROWS = 256
"""Rows of an evaluated batch: `trainer.evaluation.ROWS_AT_ONCE`, which must not be imported here."""

DRAWN_STEPS = 8
"""Steps for which dropout is drawn at once: `trainer.pack.MASK_STEPS`."""


def training_memory(settings: Settings, input_shape: tuple[int, ...], outputs: int, rows: int) -> int:
    """Bytes that training one network by itself takes at its peak, in float32, beside the dataset.

    Args:
        input_shape: (features,) or (channels, height, width).
        rows: Of the train split.
    """
    batches = [min(settings.batch_size, rows), rows % settings.batch_size]
    chunks = [min(EVALUATED_ROWS, rows), rows % EVALUATED_ROWS]
    # The best network so far is kept as well, and for a moment the one that takes its place.
    layers = layers_of(settings, input_shape, outputs)
    numbers = (kept_copies(settings) + 2) * sum(layer.weights for layer in layers)
    features = next(layer.input[0] for layer in layers if layer.kind is Kind.DENSE)
    for training, sizes in ((True, batches), (False, chunks)):
        a_row = _dense_numbers(settings, features, outputs, training=training)
        if settings.family is Family.CNN:
            a_row += _convolution_numbers(settings, input_shape, layers)
        numbers += a_row * sum(sizes)
    if settings.family is Family.CNN:
        numbers += _convolution_scratch(settings, input_shape, layers) * max(*batches, *chunks)
    # Of an epoch: the outputs, twice while they are put in order, their logarithms, and the order of the rows.
    return NUMBER * (numbers + 4 * outputs * rows) + 3 * INDEX * rows


def weight_count(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> int:
    """Trainable numbers of the network. Arguments as for `training_memory`."""
    return sum(layer.weights for layer in layers_of(settings, input_shape, outputs))


def kept_copies(settings: Settings) -> int:
    """How many numbers a trial keeps for each weight between two steps: the weight, its gradient, its moments."""
    if settings.optimizer is OptimizerKind.SGD:
        return 3 if settings.momentum > 0 else 2
    return 4


def _dense_numbers(settings: Settings, inputs: int, outputs: int, *, training: bool) -> int:
    """Numbers that the dense layers keep for each row of a batch."""
    cnn = settings.family is Family.CNN
    dropping = training and settings.dropout > 0
    # Products, values, gradients; what the batch norm makes of the products; values before dropout, its mask, those of
    # the next steps, and the random bits behind them, as 16 bits and as numbers.
    a_neuron = 3 + settings.batch_norm + (2 + DRAWN_STEPS * 2.5 if dropping else 0)
    return math.ceil(inputs * (1 + (cnn and training)) + a_neuron * sum(settings.neurons) + 4 * outputs)


def _convolution_numbers(settings: Settings, input_shape: tuple[int, ...], layers: Sequence[Layer]) -> int:
    """Numbers that the convolutional layers keep for each image of a batch, evaluated ones as well."""
    numbers = 2 * math.prod(input_shape)  # as it came, and channels last
    for layer, before, after in _maps(settings, layers):
        pooled_first = layer.pool is Pool.MAX and settings.activation not in (Activation.GELU, Activation.SILU)
        in_place = settings.activation in (
            Activation.RELU,
            Activation.LEAKY_RELU,
            Activation.TANH,
            Activation.SIGMOID,
        )
        numbers += before * (1 + settings.batch_norm)
        numbers += 0 if in_place else (after if pooled_first else before)
        # Pooled maps; for the largest of four pixels its place as well.
        numbers += {Pool.NONE: 0, Pool.AVG: after, Pool.MAX: 3 * after}[layer.pool]
    return numbers


def _convolution_scratch(settings: Settings, input_shape: tuple[int, ...], layers: Sequence[Layer]) -> int:
    """Numbers for each image of a batch that come and go with the largest layer: the gradients on both of its sides,
    and copies of what goes in and comes out, in the order that the library takes."""
    largest, inputs = 0, math.prod(input_shape)
    for _, before, after in _maps(settings, layers):
        largest = max(largest, 2 * (inputs + before))
        inputs = after
    return largest


def _maps(settings: Settings, layers: Sequence[Layer]) -> list[tuple[ConvLayer, int, int]]:
    """Each convolutional layer with its numbers an image, before and behind pooling."""
    before = [math.prod(layer.output) for layer in layers if layer.kind is Kind.CONV]
    behind = {layer.name: math.prod(layer.output) for layer in layers if layer.kind in (Kind.MAX_POOL, Kind.AVG_POOL)}
    return [
        (layer, numbers, behind.get(f"conv{number}_pool", numbers))
        for number, (layer, numbers) in enumerate(zip(settings.convolutions, before, strict=True), start=1)
    ]
