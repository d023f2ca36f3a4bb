"""What is asked of Optuna, and the networks that come of it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search.dimensions import Choice, Fixed, Range
from search.space import Proposal, Space, on_grid, repaired
from search.spec import StudySpec
from trainer.networks import build
from trainer.settings import ConvLayer, Family, OptimizerKind, Padding, Pool
from trainer.shapes import feature_map_sizes

CONV = ("conv_layers", "filters", "filter_size", "stride", "padding", "pool")

ALL_FIXED = {
    "layers": 2,
    "neurons": 16,
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": "adam",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "dropout": 0.25,
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
    "conv_layers": 2,
    "filters": 4,
    "filter_size": 3,
    "stride": 1,
    "padding": "same",
    "pool": "max",
}


def study(space: dict[str, Any] | None = None, model: Any = "mlp", **keys: Any) -> StudySpec:
    if "cnn" not in model:
        space = {key: value for key, value in (space or {}).items() if key not in CONV}
    return StudySpec.from_mapping(
        {"name": "s", "data": {"source": "digits"}, "model": model, "space": space or {}, **keys}
    )


def ask(spec: StudySpec, input_shape: tuple[int, ...], seed: int = 0) -> tuple[Proposal, dict[str, Any]]:
    """A random proposal, and what Optuna knows of it."""
    optuna_study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = optuna_study.ask()
    proposal = Space(spec, input_shape).suggest(trial)
    return proposal, trial.params


def names(proposal: Proposal) -> set[str]:
    """The names that a network of these settings has."""
    s = proposal.settings
    expected = {"model", "layers", *(f"neurons_{k + 1}" for k in range(len(s.neurons)))}
    expected |= {"activation", "learning_rate", "optimizer", "weight_decay", "dropout"}
    expected |= {"batch_norm", "batch_size", "schedule"}
    if s.optimizer is OptimizerKind.SGD:
        expected.add("momentum")
    if s.family is Family.CNN:
        expected |= {"conv_layers", "padding"}
        for k in range(len(s.convolutions)):
            expected |= {f"{name}_{k + 1}" for name in ("filters", "filter_size", "stride", "pool")}
    return expected


def dimension_of(spec: StudySpec, name: str) -> Fixed | Choice | Range:
    stem, _, number = name.rpartition("_")
    dimension: Fixed | Choice | Range = getattr(spec.space, stem if number.isdigit() else name)
    return dimension


def holds(dimension: Fixed | Choice | Range, value: Any) -> bool:
    if isinstance(dimension, Fixed):
        return type(value) is type(dimension.value) and value == dimension.value
    if isinstance(dimension, Choice):
        return any(type(value) is type(choice) and value == choice for choice in dimension.values)
    if type(value) is not type(dimension.low) or not dimension.low <= value <= dimension.high:
        return False
    steps = (value - dimension.low) / (dimension.step or 1)
    return not dimension.step or abs(steps - round(steps)) < 1e-9


def whole(low: int, high: int, odd: bool = False) -> st.SearchStrategy[Any]:
    """A fixed value, a choice or a range of whole numbers."""
    values = st.integers(low, high).map(lambda v: v + (v + 1) % 2 if odd else v)
    choices = st.lists(values, min_size=1, max_size=3, unique=True)
    ends = st.tuples(values, values).map(sorted)
    step = {"step": 2} if odd else {}
    ranges = ends.filter(lambda e: e[0] < e[1]).map(lambda e: {"low": e[0], "high": e[1], **step})
    return st.one_of(values, choices, ranges)


def words(*options: Any) -> st.SearchStrategy[Any]:
    listed = st.lists(st.sampled_from(options), min_size=1, max_size=len(options), unique=True)
    return st.one_of(st.sampled_from(options), listed)


SPACES = st.fixed_dictionaries(
    {},
    optional={
        "layers": whole(1, 3),
        "neurons": whole(1, 20),
        "optimizer": words("adam", "adamw", "sgd"),
        "momentum": st.sampled_from([0.5, [0.0, 0.9], {"low": 0.0, "high": 0.9, "step": 0.3}]),
        "dropout": st.sampled_from([0.1, [0.0, 0.5], {"low": 0.0, "high": 0.5, "step": 0.1}]),
        "batch_norm": words(True, False),
        "conv_layers": whole(1, 5),
        "filters": whole(1, 4),
        "filter_size": whole(1, 9, odd=True),
        "stride": whole(1, 4),
        "padding": words("same", "valid"),
        "pool": words("none", "max", "avg"),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    space=SPACES,
    model=st.sampled_from(["mlp", "cnn", ["mlp", "cnn"]]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 2**31),
)
def test_every_proposal_is_inside_the_space_and_lets_an_image_through(
    space: dict[str, Any], model: Any, size: tuple[int, int], seed: int
) -> None:
    spec = study(space, model)
    proposal, asked = ask(spec, (1, *size), seed)

    network = build(proposal.settings, (1, *size), 3, torch.Generator().manual_seed(0))
    assert network.eval()(torch.zeros(2, 1, *size)).shape == (2, 3)

    assert set(proposal.params) == names(proposal)
    searched = {n for n in proposal.params if n != "model" and not isinstance(dimension_of(spec, n), Fixed)}
    searched |= {"model"} if len(spec.model) == 2 else set()
    assert set(asked) == searched
    for name, value in proposal.params.items():
        assert type(value) in (bool, int, float, str)
        if name != "model" and not name.startswith(("filter_size", "pool")):
            assert holds(dimension_of(spec, name), value), name
    for name, value in asked.items():
        if name != "model":
            assert holds(dimension_of(spec, name), value), name


@settings(max_examples=100, deadline=None)
@given(space=SPACES, size=st.integers(1, 16), seed=st.integers(0, 2**31))
def test_a_repair_changes_nothing_that_passes(space: dict[str, Any], size: int, seed: int) -> None:
    spec = study(space, "cnn")
    proposal, asked = ask(spec, (1, size, size), seed)
    params = proposal.params

    proposed = [
        ConvLayer(
            filters=int(params[f"filters_{k}"]),
            filter_size=asked.get(f"filter_size_{k}", params[f"filter_size_{k}"]),
            stride=int(params[f"stride_{k}"]),
            pool=Pool(asked.get(f"pool_{k}", params[f"pool_{k}"])),
        )
        for k in range(1, int(params["conv_layers"]) + 1)
    ]
    padding = proposal.settings.padding
    sizes = [size, *(min(pair) for pair in feature_map_sizes(proposal.settings.convolutions, padding, size, size))]
    for before, layer, trained in zip(sizes, proposed, proposal.settings.convolutions, strict=False):
        if min(feature_map_sizes([layer], padding, before, before)[0]) > 0:
            assert trained == layer


def test_pooling_is_dropped_where_the_map_has_come_down_to_one_pixel() -> None:
    # 8 -> stride 2 -> 4 -> pool -> 2 -> stride 2 -> 1, too small to pool; stride 2 keeps 1 at 1.
    spec = study({**ALL_FIXED, "conv_layers": 4, "stride": 2}, "cnn")

    proposal, _ = ask(spec, (1, 8, 8))

    layers = proposal.settings.convolutions
    assert [layer.pool for layer in layers] == ["max", "none", "none", "none"]
    assert [layer.stride for layer in layers] == [2, 2, 2, 2]
    assert [layer.filter_size for layer in layers] == [3, 3, 3, 3]
    assert [proposal.params[f"pool_{k}"] for k in (1, 2, 3, 4)] == ["max", "none", "none", "none"]
    assert proposal.repairs[0] == "conv 2: the map is 1x1, and pooling needs 2x2; it is trained without pooling"
    assert len(proposal.repairs) == 3


def test_a_filter_too_large_becomes_the_largest_listed_that_fits_else_as_large_as_the_map() -> None:
    # 8 -> filter 5 -> 4; 5 does not fit in 4: 3 -> 2; neither 5 nor 3 fits in 2: 2 -> 1.
    space = {**ALL_FIXED, "conv_layers": 3, "filter_size": [5, 3], "padding": "valid", "pool": "none"}
    fives = FixedTrial({"filter_size_1": 5, "filter_size_2": 5, "filter_size_3": 5})

    proposal = Space(study(space, "cnn"), (1, 8, 8)).suggest(fives)

    assert [layer.filter_size for layer in proposal.settings.convolutions] == [5, 3, 2]
    assert [proposal.params[f"filter_size_{k}"] for k in (1, 2, 3)] == [5, 3, 2]
    assert proposal.repairs == (
        "conv 2: the map is 4x4, the filter 5x5; it is trained with a filter of 3x3",
        "conv 3: the map is 2x2, the filter 5x5; it is trained with a filter of 2x2",
    )


@pytest.mark.parametrize(
    ("size", "padding", "given_layer", "trained"),
    [
        ((4, 4), "valid", (3, 3, "max"), (3, 3, "none")),  # one place to stand: 1 x 1
        ((12, 3), "valid", (5, 1, "avg"), (3, 1, "none")),  # the short side decides: 10 x 1
        ((12, 4), "valid", (3, 1, "avg"), (3, 1, "avg")),  # 10 x 2 can be pooled
        ((6, 6), "valid", (7, 2, "max"), (5, 2, "none")),  # 5 fits in 6, but has one place at stride 2
        ((6, 6), "valid", (7, 1, "max"), (5, 1, "max")),  # and two places at stride 1
        ((2, 2), "same", (7, 1, "max"), (7, 1, "max")),  # padding lets any filter stand
        ((1, 9), "same", (3, 1, "max"), (3, 1, "none")),
    ],
)
def test_repairs_worked_out_by_hand(
    size: tuple[int, int], padding: str, given_layer: tuple[int, int, str], trained: tuple[int, int, str]
) -> None:
    layer, expected = (
        ConvLayer(filters=4, filter_size=f, stride=s, pool=Pool(p)) for f, s, p in (given_layer, trained)
    )

    assert repaired(layer, Padding(padding), *size, [3, 5, 7]) == expected


def test_optuna_keeps_what_it_proposed_where_something_else_is_trained() -> None:
    space = {**ALL_FIXED, "conv_layers": 1, "pool": ["max", "avg"]}

    proposal, asked = ask(study(space, "cnn"), (1, 1, 1))

    assert asked["pool_1"] in ("max", "avg")
    assert proposal.params["pool_1"] == "none"


def test_fixed_settings_are_in_params_and_unknown_to_optuna() -> None:
    proposal, asked = ask(study(ALL_FIXED), (64,))

    assert asked == {}
    expected = {"model": "mlp", **ALL_FIXED, "neurons_1": 16, "neurons_2": 16}
    for unused in (*CONV, "neurons", "momentum"):
        del expected[unused]
    assert proposal.params == expected
    assert proposal.settings.neurons == (16, 16)
    assert proposal.settings.batch_norm is False


def test_momentum_belongs_to_sgd() -> None:
    space = {**ALL_FIXED, "momentum": [0.8, 0.95], "optimizer": ["adam", "sgd"]}

    adam = Space(study(space), (64,)).suggest(FixedTrial({"optimizer": "adam"}))
    sgd = Space(study(space), (64,)).suggest(FixedTrial({"optimizer": "sgd", "momentum": 0.95}))

    assert "momentum" not in adam.params
    assert sgd.params["momentum"] == sgd.settings.momentum == 0.95


def test_each_layer_has_widths_of_its_own_and_no_more_than_it_needs() -> None:
    proposal, asked = ask(study({**ALL_FIXED, "layers": 3, "neurons": {"low": 1, "high": 10**5}}), (64,))

    assert list(asked) == ["neurons_1", "neurons_2", "neurons_3"]
    assert len(set(proposal.settings.neurons)) == 3  # three equal draws of 100,000: never


def test_values_keep_their_types() -> None:
    space = {**ALL_FIXED, "batch_norm": [True, False], "batch_size": [1, 2], "dropout": [0, 0.5]}

    for seed in range(8):
        proposal, _ = ask(study(space), (64,), seed)
        kinds = {name: type(proposal.params[name]) for name in ("batch_norm", "batch_size", "dropout")}
        assert kinds == {"batch_norm": bool, "batch_size": int, "dropout": float}


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        (Range(low=1, high=4), (1, 2, 3, 4)),
        (Range(low=0, high=100), (0, 25, 50, 75, 100)),
        (Range(low=16, high=256, log=True), (16, 32, 64, 128, 256)),
        (Range(low=0.0, high=0.5), (0.0, 0.125, 0.25, 0.375, 0.5)),
        (Range(low=0.0, high=0.3, step=0.1), (0.0, 0.1, 0.2, 0.3)),
        (Range(low=3, high=9, step=2), (3, 5, 7, 9)),
    ],
)
def test_a_grid_takes_steps_or_five_values_of_a_range(dimension: Range, values: tuple[Any, ...]) -> None:
    taken = on_grid(dimension).values

    assert taken == values
    assert [type(value) for value in taken] == [type(value) for value in values]


def test_a_grid_of_a_log_range_is_even_in_powers() -> None:
    taken = on_grid(Range(low=1e-4, high=1.0, log=True)).values

    assert taken == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    assert (taken[0], taken[-1]) == (1e-4, 1.0)
