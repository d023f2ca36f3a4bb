"""A space's networks before anything is trained, beside what a search really draws from it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.preview import COUNTED, DRAWS, preview
from search.space import Space
from search.spec import StudySpec
from search.study import Proposals
from trainer.memory import training_memory, weight_count

DIGITS = (1, 8, 8)
SMALL: dict[str, Any] = {
    "layers": [1, 2],
    "neurons": [8, 16],
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": ["adam", "sgd"],
    "momentum": [0.5, 0.9],
    "weight_decay": 0.0,
    "dropout": {"low": 0.0, "high": 0.2, "step": 0.1},
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
}
CONVOLUTIONS: dict[str, Any] = {
    **SMALL,
    "layers": 1,
    "neurons": 8,
    "momentum": 0.9,
    "optimizer": "sgd",
    "dropout": 0.0,
    "conv_layers": [1, 2],
    "filters": 4,
    "filter_size": [3, 5],
    "stride": [1, 2],
    "padding": "valid",
    "pool": ["none", "max"],
}


def study(space: dict[str, Any], model: Any = "mlp", **keys: Any) -> StudySpec:
    return StudySpec.from_mapping({"name": "s", "data": {"source": "digits"}, "model": model, "space": space, **keys})


def by_grid(spec: StudySpec, input_shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """The settings of every trial that a grid has."""
    proposals, found = Proposals(spec, input_shape, "s"), []
    while (trial := proposals.ask()) is not None:
        found.append(trial.settings)
    return found


@pytest.mark.parametrize(("space", "model"), [(SMALL, "mlp"), (CONVOLUTIONS, "cnn")])
def test_the_combinations_are_those_that_a_grid_goes_through(space: dict[str, Any], model: str) -> None:
    spec = study(space, model, search={"sampler": "grid"})
    settings_of_all = by_grid(spec, DIGITS)
    found = preview(spec, DIGITS, 10, 100)
    assert found.combinations == len(settings_of_all)
    assert found.different == len({str(each) for each in settings_of_all})
    assert found.continuous == ()


def test_what_no_image_passes_comes_to_fewer_different_networks_once_it_is_repaired() -> None:
    space = {**CONVOLUTIONS, "conv_layers": 1, "filter_size": 3, "stride": 1}
    found = preview(study(space, "cnn"), (1, 3, 3), 10, 100)
    assert (found.combinations, found.different) == (2, 1)
    assert found.repairs == (
        ("conv 1: the map is 1x1, and pooling needs 2x2; it is trained without pooling", found.repaired),
    )
    assert 0.4 < found.repaired < 0.6  # half of the draws: 0.5 with a standard deviation of 0.016


def test_ranges_without_steps_are_named_and_a_large_space_is_not_gone_through() -> None:
    space = {**SMALL, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    assert preview(study(space), DIGITS, 10, 100).continuous == ("learning_rate",)
    large = preview(study({"neurons": {"low": 1, "high": COUNTED}}), DIGITS, 10, 100)
    assert (large.combinations, large.different) == (None, None)
    assert {"learning_rate", "weight_decay", "dropout"} <= set(large.continuous)


SPACES = st.fixed_dictionaries(
    {
        "layers": st.sampled_from([1, {"low": 1, "high": 3}, [2, 4]]),
        "neurons": st.sampled_from([8, {"low": 4, "high": 64, "log": True}, [3, 30]]),
        "conv_layers": st.sampled_from([1, {"low": 1, "high": 4}]),
        "filters": st.sampled_from([4, {"low": 2, "high": 32, "log": True}]),
        "filter_size": st.sampled_from([3, [3, 5], {"low": 1, "high": 7, "step": 2}]),
        "stride": st.sampled_from([1, [1, 2], 3]),
        "padding": st.sampled_from(["same", "valid", ["same", "valid"]]),
        "pool": st.sampled_from(["none", ["none", "max", "avg"], "avg"]),
    }
)


@settings(max_examples=10, deadline=None)
@given(SPACES, st.integers(7, 12))
def test_what_a_search_draws_lies_between_the_smallest_and_the_largest(space: dict[str, Any], side: int) -> None:
    spec, shape = study(space, ["mlp", "cnn"]), (1, side, side)
    with patch("search.preview.COUNTED", 10), patch("search.preview.DRAWS", 100):
        found = preview(spec, shape, 10, 100)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=side))
    for _ in range(30):
        weights = weight_count(Space(spec, shape).suggest(drawn.ask()).settings, shape, 10)
        assert found.smallest.weights <= weights <= found.largest.weights
    assert found.smallest.weights <= found.median.weights <= found.largest.weights


def test_the_draws_are_spread_as_optunas() -> None:
    spec = study({"neurons": {"low": 4, "high": 64, "log": True}, "layers": [1, 2], "batch_size": [32, 64, 128]})
    found = preview(spec, DIGITS, 10, 100)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    theirs = sorted(Space(spec, DIGITS).suggest(drawn.ask()).settings.neurons[0] for _ in range(DRAWS))
    ours = sorted(each.neurons[0] for each in found.draws)
    # The largest distance of two empirical distributions of 1,000 is over 0.087 once in a thousand times.
    distance = max(abs(sum(x <= n for x in ours) - sum(x <= n for x in theirs)) for n in range(4, 65)) / DRAWS
    assert distance < 0.087
    assert (min(ours), max(ours)) == (4, 64)


def test_a_network_is_told_with_its_weights_memory_and_products_and_always_the_same() -> None:
    spec = study({**SMALL, "layers": 1, "neurons": {"low": 4, "high": 64}})
    found = preview(spec, DIGITS, 10, 100)
    assert (found.smallest.weights, found.largest.weights) == (64 * 4 + 4 + 50, 64 * 64 + 64 + 650)
    assert found.largest.multiply_adds == 64 * 64 + 640
    assert found.largest.params["neurons_1"] == 64
    largest = next(each for each in found.draws if each.neurons == (64,) and each.dropout > 0)
    assert found.largest.memory <= training_memory(largest, DIGITS, 10, 100)
    assert preview(spec, DIGITS, 10, 100) == found
