"""Networks against plain `torch.nn.Sequential`, and their initial weights against the papers' conditions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.special
import torch
from hypothesis import assume, given, settings
from torch import Tensor, nn

from neurosweep.errors import BadInputError
from tests.trainer.trainer_cases import CNN, MLP, any_cnn_settings, any_settings, settings_of
from trainer.networks import (
    RECTIFIER_GAINS,
    Dropout,
    build,
    count_weights,
    load_arrays,
    to_arrays,
    weight_std,
)
from trainer.settings import Activation, ConvLayer, Padding, Pool, Settings
from trainer.shapes import feature_map_sizes

Function = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

FORMULAS: dict[Activation, Function] = {
    Activation.RELU: lambda z: np.maximum(z, 0),
    Activation.TANH: np.tanh,
    Activation.GELU: lambda z: z * scipy.special.ndtr(z),
    Activation.SILU: lambda z: z * scipy.special.expit(z),
    Activation.LEAKY_RELU: lambda z: np.where(z > 0, z, 0.01 * z),
    Activation.ELU: lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    Activation.SIGMOID: scipy.special.expit,
}
PLAIN_ACTIVATIONS = {
    Activation.RELU: nn.ReLU(),
    Activation.TANH: nn.Tanh(),
    Activation.GELU: nn.GELU(),
    Activation.SILU: nn.SiLU(),
    Activation.LEAKY_RELU: nn.LeakyReLU(),
    Activation.ELU: nn.ELU(),
    Activation.SIGMOID: nn.Sigmoid(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(network: Settings, channels: int, features: int, outputs: int) -> nn.Sequential:
    """The same network as one would write it by hand; `features` come out of the flattening."""
    activation, normed = PLAIN_ACTIVATIONS[network.activation], network.batch_norm
    parts: list[nn.Module] = []
    for layer in network.convolutions:
        around = layer.filter_size // 2 if network.padding is Padding.SAME else 0
        parts.append(nn.Conv2d(channels, layer.filters, layer.filter_size, layer.stride, around, bias=not normed))
        parts += [nn.BatchNorm2d(layer.filters)] if normed else []
        parts.append(activation)
        if layer.pool is not Pool.NONE:
            parts.append(nn.MaxPool2d(2) if layer.pool is Pool.MAX else nn.AvgPool2d(2))
        channels = layer.filters
    parts.append(nn.Flatten())
    for width in network.neurons:
        parts.append(nn.Linear(features, width, bias=not normed))
        parts += [nn.BatchNorm1d(width)] if normed else []
        parts.append(activation)
        features = width
    return nn.Sequential(*parts, nn.Linear(features, outputs))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    ours, theirs = list(source.state_dict().values()), list(target.state_dict())
    target.load_state_dict(dict(zip(theirs, ours, strict=True)))


def assert_same_outputs_and_gradients(network: nn.Module, oracle: nn.Module, inputs: Tensor) -> None:
    copy_weights(network, oracle)
    network.double().train()
    oracle.double().train()
    ours, theirs = network(inputs), oracle(inputs)
    torch.testing.assert_close(ours, theirs)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for mine, other in zip(network.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(network.eval()(inputs), oracle.eval()(inputs))


@settings(max_examples=60, deadline=None)
@given(any_settings)
def test_mlp_has_the_outputs_and_gradients_of_a_plain_one(chosen: Settings) -> None:
    inputs = torch.randn(6, 4, generator=generator(), dtype=torch.float64)
    network = build(chosen, (4,), 3, generator())
    assert_same_outputs_and_gradients(network, plain(chosen, 1, 4, 3), inputs)


@settings(max_examples=60, deadline=None)
@given(any_cnn_settings)
def test_cnn_has_the_outputs_and_gradients_of_a_plain_one(chosen: Settings) -> None:
    height, width = feature_map_sizes(chosen.convolutions, chosen.padding, 12, 9)[-1]
    assume(height > 0 and width > 0)
    inputs = torch.randn(6, 2, 12, 9, generator=generator(), dtype=torch.float64)
    network = build(chosen, (2, 12, 9), 3, generator())
    oracle = plain(chosen, 2, chosen.convolutions[-1].filters * height * width, 3)
    assert_same_outputs_and_gradients(network, oracle, inputs)


@settings(max_examples=60, deadline=None)
@given(any_cnn_settings)
def test_cnn_is_built_exactly_when_no_feature_map_vanishes(chosen: Settings) -> None:
    vanishes = any(0 in size for size in feature_map_sizes(chosen.convolutions, chosen.padding, 7, 5))
    if vanishes:
        with pytest.raises(BadInputError, match=r"^conv \d: the map is \d"):
            build(chosen, (1, 7, 5), 2, generator())
    else:
        assert build(chosen, (1, 7, 5), 2, generator()).eval()(torch.zeros(1, 1, 7, 5)).shape == (1, 2)


@pytest.mark.parametrize("activation", Activation)
def test_activation_is_the_one_it_is_called(activation: Activation) -> None:
    network = build(settings_of(activation=activation, neurons=(1,)), (1,), 1, generator())
    for weight in ("dense1.weight", "output.weight"):
        nn.init.ones_(network.get_parameter(weight))
    z = np.linspace(-3, 3, 25)
    outputs = network.double()(torch.from_numpy(z)[:, None]).detach().numpy()[:, 0]
    np.testing.assert_allclose(outputs, FORMULAS[activation](z), atol=1e-7)


@pytest.mark.parametrize("activation", RECTIFIER_GAINS)
def test_rectifier_gain_keeps_the_second_moment(activation: Activation) -> None:
    def integrand(z: float) -> float:
        return float(FORMULAS[activation](np.array(z)) ** 2) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    second_moment = scipy.integrate.quad(integrand, -10, 0)[0] + scipy.integrate.quad(integrand, 0, 10)[0]
    assert weight_std(activation, fan_in=1, fan_out=5) ** 2 * second_moment == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("activation", Activation)
def test_initial_weights_of_each_layer_have_the_variance_of_its_true_fans(activation: Activation) -> None:
    convolution = ConvLayer(filters=40, filter_size=5, stride=1, pool=Pool.AVG)
    chosen = settings_of(CNN, activation=activation, convolutions=(convolution,), neurons=(120,))
    network = build(chosen, (3, 8, 8), 50, generator())
    glorot = {Activation.TANH: 1.0, Activation.SIGMOID: 4.0}
    fans = {"conv1": (3 * 25, 40 * 25), "dense1": (40 * 16, 120)}
    for name, (fan_in, fan_out) in fans.items():
        if activation in glorot:
            expected = glorot[activation] * math.sqrt(2 / (fan_in + fan_out))
        else:
            expected = RECTIFIER_GAINS[activation] / math.sqrt(fan_in)
        weight = network.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(expected, rel=0.04)
        assert abs(weight.mean().item()) < 4 * expected / math.sqrt(weight.numel())
    output = network.get_submodule("output")
    assert isinstance(output, nn.Linear)
    assert output.weight.std().item() == pytest.approx(1 / math.sqrt(120), rel=0.04)
    assert not output.bias.any()


@pytest.mark.parametrize("activation", RECTIFIER_GAINS)
def test_signal_neither_dies_nor_explodes_in_a_deep_network(activation: Activation) -> None:
    network = build(settings_of(activation=activation, neurons=(256,) * 12), (256,), 256, generator())
    # So that the first activations get a variance of 1, which the later layers are to keep.
    inputs = torch.randn(64, 256, generator=generator(1)) / (weight_std(activation, 256, 256) * 16)
    outputs = network(inputs) * weight_std(activation, 256, 256) * 16
    assert 0.3 < outputs.square().mean().item() < 3


def test_weights_come_from_the_generator_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(CNN, (1, 8, 8), 3, generator(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(CNN, (1, 8, 8), 3, generator(5)), build(CNN, (1, 8, 8), 3, generator(6))
    for weight in ("conv1.weight", "dense1.weight", "output.weight"):
        assert torch.equal(first.get_parameter(weight), again.get_parameter(weight))
        assert not torch.equal(first.get_parameter(weight), other.get_parameter(weight))


def test_dropout_zeroes_its_share_and_scales_the_rest() -> None:
    dropout = Dropout(0.3, generator())
    dropped = dropout(torch.ones(100, 1000))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))


def test_dropout_follows_each_hidden_dense_layer_only() -> None:
    names = [name for name, _ in build(settings_of(CNN, dropout=0.2), (1, 8, 8), 3, generator()).named_children()]
    assert [name for name in names if "dropout" in name] == ["dense1_dropout", "dense2_dropout"]
    assert not any("dropout" in name for name, _ in build(CNN, (1, 8, 8), 3, generator()).named_children())


def test_count_of_weights_is_that_of_the_arithmetic() -> None:
    assert count_weights(build(MLP, (5,), 3, generator())) == (5 * 16 + 16) + (16 * 12 + 12) + (12 * 3 + 3)


def test_cnn_on_a_table_is_an_error_that_says_so() -> None:
    with pytest.raises(BadInputError, match="needs images"):
        build(CNN, (5,), 3, generator())


def test_weights_survive_the_way_through_arrays() -> None:
    source = build(settings_of(CNN, batch_norm=True), (1, 8, 8), 3, generator(1))
    target = build(settings_of(CNN, batch_norm=True), (1, 8, 8), 3, generator(2))
    load_arrays(target, to_arrays(source.state_dict()))
    inputs = torch.randn(4, 1, 8, 8, generator=generator())
    assert torch.equal(source.eval()(inputs), target.eval()(inputs))


@pytest.mark.parametrize("fault", ["missing", "too many", "shape"])
def test_weights_of_another_network_are_refused(fault: str) -> None:
    network = build(MLP, (5,), 3, generator())
    weights = to_arrays(network.state_dict())
    if fault == "missing":
        del weights["dense2.bias"]
    elif fault == "too many":
        weights["dense3.bias"] = np.zeros(3, dtype=np.float32)
    else:
        weights["dense2.bias"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(BadInputError, match=r"dense[23]\.bias") as caught:
        load_arrays(network, weights)
    assert "\n" not in caught.value.message
