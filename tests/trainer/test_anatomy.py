"""The arithmetic of what a network is made of, held against the real network."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import CNN, any_cnn_settings, settings_of
from trainer.anatomy import Kind, Layer, layers_of
from trainer.networks import build, count_weights
from trainer.settings import Activation, ConvLayer, Family, Padding, Pool, Settings

IMAGE = (3, 200, 200)
FIVES = settings_of(
    CNN, convolutions=(ConvLayer(filters=16, filter_size=5, stride=1, pool=Pool.NONE),), padding=Padding.SAME
)


def random_network(number: int) -> tuple[Settings, tuple[int, ...], int]:
    """Settings of the ranges that searches have, data of some shape, and outputs."""
    rng = np.random.default_rng(number)
    family = Family.CNN if rng.random() < 0.7 else Family.MLP
    images = family is Family.CNN or rng.random() < 0.3
    shape = (int(rng.choice([1, 3])), *map(int, rng.integers(1, 40, 2))) if images else (int(rng.integers(1, 50)),)
    layers = tuple(
        ConvLayer(
            filters=int(rng.integers(1, 33)),
            filter_size=int(rng.integers(1, 8)),
            stride=int(rng.integers(1, 4)),
            pool=Pool(rng.choice(list(Pool))),
        )
        for _ in range(int(rng.integers(1, 4)) if family is Family.CNN else 0)
    )
    settings = settings_of(
        CNN,
        family=family,
        convolutions=layers,
        neurons=tuple(map(int, rng.integers(1, 100, int(rng.integers(0, 4))))),
        padding=Padding(rng.choice(list(Padding))),
        batch_norm=bool(rng.random() < 0.5),
    )
    return settings, shape, int(rng.integers(1, 11))


def seen_by_torch(network: nn.Sequential, shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """What each module takes and gives for one row, its weights, and its multiply-adds."""
    seen: dict[str, dict[str, Any]] = {}

    def look(name: str, module: nn.Module, before: tuple[Tensor], after: Tensor) -> None:
        weights = sum(parameter.numel() for parameter in module.parameters())
        seen[name] = {"input": tuple(before[0].shape[1:]), "output": tuple(after.shape[1:]), "weights": weights}

    for name, module in network.eval().named_children():
        module.register_forward_hook(functools.partial(look, name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape))
    counts = counter.get_flop_counts()
    for name, facts in seen.items():
        facts["products"] = sum(counts.get(f"Sequential.{name}", {}).values()) // 2
    return seen


def test_shapes_weights_and_multiply_adds_of_200_networks_are_torchs() -> None:
    compared = refused = 0
    while compared < 200:
        settings, shape, outputs = random_network(compared + refused)
        try:
            network = build(settings, shape, outputs, torch.Generator())
        except BadInputError as error:
            with pytest.raises(BadInputError, match="^" + str(error).partition(";")[0]):
                layers_of(settings, shape, outputs)
            refused += 1
            continue
        layers, seen = layers_of(settings, shape, outputs), seen_by_torch(network, shape)
        assert [layer.name for layer in layers] == [
            name for name in seen if not name.endswith(("activation", "flatten"))
        ]
        for layer in layers:
            facts = {
                "input": layer.input,
                "output": layer.output,
                "weights": layer.weights,
                "products": layer.multiply_adds,
            }
            assert facts == seen[layer.name], (layer.name, settings, shape)
        assert sum(layer.weights for layer in layers) == count_weights(network)
        compared += 1
    assert refused > 10


def test_windows_are_those_of_the_modules() -> None:
    settings = settings_of(
        CNN,
        convolutions=(
            ConvLayer(filters=4, filter_size=5, stride=2, pool=Pool.MAX),
            ConvLayer(filters=2, filter_size=3, stride=1, pool=Pool.AVG),
        ),
        padding=Padding.SAME,
    )
    network = dict(build(settings, (1, 30, 30), 2, torch.Generator()).named_children())
    for layer in layers_of(settings, (1, 30, 30), 2):
        module = network[layer.name]
        if isinstance(module, nn.Conv2d):
            assert layer.window is not None
            window = (layer.window.size, layer.window.stride, layer.window.padding)
            assert [module.kernel_size[0], module.stride[0], module.padding[0]] == list(window)
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            assert layer.window is not None and (layer.window.size, layer.window.padding) == (module.kernel_size, 0)
            assert layer.kind == ("max_pool" if isinstance(module, nn.MaxPool2d) else "avg_pool")


@limits(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(any_cnn_settings, st.integers(6, 24), st.integers(6, 24), st.data())
def test_a_neuron_sees_the_square_of_the_image_that_its_gradient_reaches(
    settings: Settings, height: int, width: int, data: st.DataObject
) -> None:
    # Smooth activations and averages, so that no gradient on the way is 0; without norms, which see the whole batch.
    pools = {Pool.MAX: Pool.AVG, Pool.AVG: Pool.AVG, Pool.NONE: Pool.NONE}
    layers = tuple(dataclasses.replace(layer, pool=pools[layer.pool]) for layer in settings.convolutions)
    settings = dataclasses.replace(
        settings, convolutions=layers, batch_norm=False, activation=Activation.SIGMOID, neurons=()
    )
    try:
        network = build(settings, (1, height, width), 1, torch.Generator()).double()
    except BadInputError:
        assume(False)
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.1)  # nor do weights of opposite signs cancel out
    layer = data.draw(
        st.sampled_from([each for each in layers_of(settings, (1, height, width), 1) if each.sees is not None])
    )
    row, column = (data.draw(st.integers(0, side - 1)) for side in layer.output[1:])
    image = torch.zeros(1, 1, height, width, dtype=torch.double, requires_grad=True)
    maps: Tensor = image
    for name, module in network.named_children():
        maps = module(maps)
        if name == layer.name:
            break
    (gradient,) = torch.autograd.grad(maps[0, 0, row, column], image)
    reached = gradient[0, 0].nonzero()
    # A stride that is larger than its filter leaves gaps, at the square's borders as well where it is cut off.
    for at, place, side in ((0, row, height), (1, column, width)):
        first, last = square(layer, place)
        inside = range(max(0, first), min(side, last + 1))
        assert set(reached[:, at].tolist()) <= set(inside)
        if first >= 0:
            assert int(reached[:, at].min()) == first
        if last < side:
            assert int(reached[:, at].max()) == last


def square(layer: Layer, place: int) -> tuple[int, int]:
    """The first and the last row (or column) that a neuron sees, as `ReceptiveField` says."""
    sees = layer.sees
    assert sees is not None
    first = sees.offset + place * sees.jump
    return first, first + sees.size - 1


def test_a_filter_is_shared_where_dense_neurons_would_each_need_the_whole_image() -> None:
    first, *_, output = layers_of(FIVES, IMAGE, 10)
    assert (first.output, first.sees and first.sees.size) == ((16, 200, 200), 5)
    assert (first.weights, first.dense_weights_per_neuron) == (1216, 120_000)
    assert (first.shared_weights_per_channel, first.shared_weights_per_filter) == (25, 75)
    assert first.dense_weights == 16 * 200 * 200 * 120_001
    assert first.activation_memory == 4 * 16 * 200 * 200
    assert output.dense_weights == output.weights and output.shared_weights_per_filter is None


def test_two_small_filters_see_as_much_as_a_large_one_and_pooling_doubles_the_step() -> None:
    threes = tuple(
        ConvLayer(filters=2, filter_size=3, stride=1, pool=pool) for pool in (Pool.NONE, Pool.MAX, Pool.NONE)
    )
    layers = layers_of(settings_of(CNN, convolutions=threes, padding=Padding.VALID), (1, 28, 28), 10)
    sees = {layer.name: layer.sees and (layer.sees.size, layer.sees.jump, layer.sees.offset) for layer in layers}
    assert sees["conv2"] == (5, 1, 0)
    assert sees["conv2_pool"] == (6, 2, 0)
    assert sees["conv3"] == (10, 2, 0)
    assert sees["output"] is None


def test_a_norm_has_two_weights_a_map_and_takes_the_biases_away() -> None:
    layers = {layer.name: layer for layer in layers_of(dataclasses.replace(FIVES, batch_norm=True), IMAGE, 10)}
    assert (layers["conv1"].weights, layers["conv1_norm"].weights) == (1200, 32)
    assert layers["conv1_norm"].kind is Kind.NORM and layers["conv1_norm"].sees == layers["conv1"].sees
    assert layers["conv1_norm"].dense_weights is None and layers["conv1_norm"].multiply_adds == 0


def test_a_network_that_no_image_passes_has_no_layers() -> None:
    with pytest.raises(BadInputError, match="conv 1: the map is 4x9, the filter 5x5"):
        layers_of(dataclasses.replace(FIVES, padding=Padding.VALID), (1, 4, 9), 10)
    with pytest.raises(BadInputError, match="images"):
        layers_of(FIVES, (7,), 10)


def test_without_convolutions_the_first_dense_layer_sees_every_pixel() -> None:
    layers = layers_of(settings_of(CNN, convolutions=(), neurons=(8,)), (2, 5, 4), 3)
    assert [layer.name for layer in layers] == ["dense1", "output"]
    assert layers[0].input == (math.prod((2, 5, 4)),)
