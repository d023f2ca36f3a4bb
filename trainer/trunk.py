"""The convolutional layers of one network, from its images to the features that its dense layers see: a forward and a
backward pass written by hand, as for the dense layers in `trainer.stack`."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.member import Convolution, Member
from trainer.precision import Precision
from trainer.settings import Activation, ConvLayer, Pool, Settings
from trainer.shapes import zero_padding
from trainer.stack import BACKWARD, EPSILON, FORWARD, MOMENTUM

MONOTONE = frozenset(Activation) - {Activation.GELU, Activation.SILU}
"""Where these precede max pooling, the order makes no difference to the outcome; pooling first leaves them a quarter
of the pixels."""

IN_PLACE = frozenset({Activation.RELU, Activation.LEAKY_RELU, Activation.TANH, Activation.SIGMOID})
"""The way back through these needs their output alone, which can take the place of their input."""

ops = torch.ops.aten


class Trunk:
    """The convolutional layers of one network for batches of one size.

    Args:
        features: Where the features go, (features, batch) as a view of a matrix of rows.
        training: Whether the batch norms do as while learning; only then is there a backward pass.

    Attributes:
        gradients: The loss's gradient with respect to the features, (features, batch) as a view of a matrix of rows; to
            be filled in before `backward`. None unless training.
    """

    def __init__(self, member: Member, features: Tensor, *, training: bool) -> None:
        self._features = features.t()
        self._training = training
        self.gradients = (
            torch.empty_like(self._features, memory_format=torch.contiguous_format).t() if training else None
        )
        settings, precision = member.settings, member.precision if training else Precision.FLOAT32
        pairs = zip(member.convolutions, settings.convolutions, strict=True)
        self._layers = [_Layer(layer, settings, shape, precision, training=training) for layer, shape in pairs]
        self._shape: torch.Size

    def forward(self, images: Tensor) -> None:
        """Images (batch, channels, height, width) -> features."""
        maps = _channels_last(images)
        for layer in self._layers:
            maps = layer.forward(maps)
        self._shape = maps.shape
        self._features.view(self._shape).copy_(maps)

    def backward(self) -> None:
        """From `gradients` to the gradient of every convolutional weight."""
        assert self.gradients is not None  # noqa: S101 - for the type checker
        gradients = _channels_last(self.gradients.t().view(self._shape))
        for number, layer in reversed(list(enumerate(self._layers))):
            # Nothing is to be learned about the images.
            gradients = layer.backward(gradients, to_input=number > 0)


class _Layer:
    """Convolution, batch norm, activation, pooling."""

    def __init__(
        self, layer: Convolution, settings: Settings, shape: ConvLayer, precision: Precision, *, training: bool
    ) -> None:
        self._layer, self._pool, self._activation = layer, shape.pool, settings.activation
        self._training = training
        self._stride = [shape.stride] * 2
        self._padding = [zero_padding(shape, settings.padding)] * 2
        self._dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else layer.weights.dtype
        self._pool_first = shape.pool is Pool.MAX and settings.activation in MONOTONE

    def forward(self, images: Tensor) -> Tensor:
        """Keeps what the way back needs."""
        layer = self._layer
        self._images, self._weights = images.to(self._dtype), layer.weights.to(self._dtype)
        bias = None if layer.bias is None else layer.bias[0].to(self._dtype)
        maps = torch.conv2d(self._images, self._weights, bias, self._stride, self._padding).to(images.dtype)
        if layer.norm is not None:
            norm, self._convolved = layer.norm, maps
            running = norm.mean, norm.variance
            maps, *self._saved = ops.native_batch_norm(
                maps, norm.scale, norm.shift, *running, self._training, MOMENTUM, EPSILON
            )
        if self._pool_first:
            return self._activate(self._pooled(maps))
        return self._pooled(self._activate(maps))

    def backward(self, gradients: Tensor, *, to_input: bool) -> Tensor:
        """The loss's gradient with respect to the layer's output -> the one with respect to its input."""
        layer = self._layer
        turn = BACKWARD[self._activation]
        if self._pool_first:
            turn(gradients, self._before, self._after)()
            gradients = self._unpooled(gradients)
        else:
            gradients = self._unpooled(gradients)
            turn(gradients, self._before, self._after)()
        if layer.norm is not None:
            norm = layer.norm
            running = norm.mean, norm.variance
            gradients, scale, shift = ops.native_batch_norm_backward(
                *(gradients, self._convolved, norm.scale, *running, *self._saved, True, EPSILON, [True] * 3)
            )
            norm.scale_gradient.copy_(scale)
            norm.shift_gradient.copy_(shift)
        filters = [len(layer.weights)] if layer.bias is not None else None
        to_images, weights, bias = ops.convolution_backward(
            *(gradients.to(self._dtype), self._images, self._weights, filters, self._stride, self._padding),
            *([1, 1], False, [0, 0], 1, [to_input, True, layer.bias is not None]),
        )
        layer.gradient.copy_(weights)
        if layer.bias is not None:
            layer.bias[1].copy_(bias)
        return to_images.to(gradients.dtype) if to_input else gradients

    def _activate(self, maps: Tensor) -> Tensor:
        self._before = maps
        self._after = maps if self._activation in IN_PLACE else torch.empty_like(maps)
        FORWARD[self._activation](self._before, self._after)()
        return self._after

    def _pooled(self, maps: Tensor) -> Tensor:
        self._unpooled_maps = maps
        match self._pool:
            case Pool.MAX:
                maps, self._places = ops.max_pool2d_with_indices(maps, [2, 2], [2, 2])
            case Pool.AVG:
                maps = ops.avg_pool2d(maps, [2, 2], [2, 2])
            case Pool.NONE:
                pass
        return maps

    def _unpooled(self, gradients: Tensor) -> Tensor:
        maps, window = self._unpooled_maps, ([2, 2], [2, 2], [0, 0])
        match self._pool:
            case Pool.MAX:
                gradients = ops.max_pool2d_with_indices_backward(gradients, maps, *window, [1, 1], False, self._places)
            case Pool.AVG:
                gradients = ops.avg_pool2d_backward(gradients, maps, *window, False, True, None)
            case Pool.NONE:
                pass
        return gradients


def _channels_last(maps: Tensor) -> Tensor:
    """The same numbers, channel by channel for each pixel.

    Strides that say so even for a single channel, for which both layouts are one: PyTorch would go on with channels
    first, in which max pooling takes ten times as long, average pooling five times, and some convolutions as well.
    """
    _, channels, height, width = maps.shape
    if channels == 1:
        return maps.contiguous().as_strided(maps.shape, (height * width, 1, width, 1))
    return maps.contiguous(memory_format=torch.channels_last)
