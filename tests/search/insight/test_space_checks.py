"""What is found in trials of known laws: borders, importances, interactions, barren regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.insight.barren import barren_regions
from search.insight.importances import importances, interactions
from search.insight.space_checks import borders, good_values, space_findings
from search.leaders import leaders
from search.spec import StudySpec
from storage.records import TrialRecord, TrialState
from tests.search.insight.trials import trial

SPACE: dict[str, Any] = {
    "layers": {"low": 1, "high": 3},
    "neurons": {"low": 8, "high": 128, "log": True},
    "activation": ["relu", "tanh"],
    "learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
    "optimizer": ["adam", "sgd"],
    "weight_decay": 0.0001,
    "dropout": {"low": 0.0, "high": 0.5},
    "batch_norm": [True, False],
    "batch_size": [32, 64, 128],
    "schedule": "constant",
}


def spec_of(**space: Any) -> StudySpec:
    return StudySpec.from_mapping({"name": "made-up", "data": {"source": "iris"}, "space": SPACE | space})


def drawn(count: int, value: Callable[[dict[str, Any]], float | None], seed: int = 0) -> list[TrialRecord]:
    """Random trials of `SPACE` with a value that follows from their settings; None: it failed."""
    random, trials = np.random.default_rng(seed), []
    for number in range(count):
        layers = int(random.integers(1, 4))
        params: dict[str, Any] = {
            "layers": layers,
            **{f"neurons_{at + 1}": int(np.exp(random.uniform(np.log(8), np.log(128)))) for at in range(layers)},
            "activation": str(random.choice(["relu", "tanh"])),
            "learning_rate": float(np.exp(random.uniform(np.log(1e-4), np.log(0.1)))),
            "optimizer": str(random.choice(["adam", "sgd"])),
            "weight_decay": 0.0001,
            "dropout": float(random.uniform(0, 0.5)),
            "batch_norm": bool(random.integers(2)),
            "batch_size": int(random.choice([32, 64, 128])),
        }
        reached = value(params)
        noisy = None if reached is None else reached + 0.002 * random.normal()
        trials.append(trial(number, validation=noisy, params=params))
    return trials


def test_the_border_that_the_best_press_against_is_found_on_the_ranges_own_scale() -> None:
    trials = drawn(300, lambda params: 0.5 - 0.1 * np.log10(params["learning_rate"] / 1e-4))

    found = borders(spec_of(), leaders(trials)[:10])

    assert [(each.key, each.end, each.bound, each.movable) for each in found] == [("learning_rate", "upper", 0.1, True)]
    assert found[0].near >= 5 and found[0].of == 10
    wide = spec_of(learning_rate={"low": 0.0001, "high": 1.0, "log": True})
    assert borders(wide, leaders(trials)[:10]) == ()


def test_a_linear_range_ends_where_a_log_range_of_the_same_numbers_does_not() -> None:
    middling = {"learning_rate": 0.004, "layers": 2, "neurons_2": 30, "dropout": 0.2, "batch_size": 64}
    best = [trial(number, validation=0.1, params=middling) for number in range(10)]
    wide = {"low": 0.0001, "high": 0.1}

    assert [each.end for each in borders(spec_of(learning_rate=wide), best)] == ["lower"]
    assert borders(spec_of(learning_rate={**wide, "log": True}), best) == ()


def test_an_end_that_cannot_move_says_so() -> None:
    best = [
        trial(number, validation=0.1, params={"dropout": 0.001, "layers": 3, "neurons_2": 8, "neurons_3": 9})
        for number in range(10)
    ]

    found = {(each.key, each.end): each for each in borders(spec_of(), best)}

    assert not found["dropout", "lower"].movable
    assert found["layers", "upper"].movable
    assert ("neurons", "lower") not in found  # the widest of its layers has 32


def test_a_few_values_are_no_border_as_chance_puts_many_at_their_ends() -> None:
    values = [1, 1, 1, 1, 1, 2, 2, 3, 3, 2]
    best = [
        trial(number, validation=0.1, params={"layers": layers, "neurons_2": 30, "neurons_3": 30})
        for number, layers in enumerate(values)
    ]

    assert "layers" not in {each.key for each in borders(spec_of(), best)}


def test_the_good_values_are_the_quantiles_of_the_best_over_all_layers() -> None:
    best = [trial(number, validation=0.1, params={"neurons_1": 10 + number}) for number in range(10)]

    assert good_values(spec_of(), best)["neurons"] == (10, 18)


def test_the_parameter_that_decides_is_the_most_important_one() -> None:
    trials = drawn(300, lambda params: 0.2 + params["dropout"] + 0.05 * (params["optimizer"] == "sgd"))

    found = importances(spec_of(), trials, seed=0)

    assert next(iter(found)) == "dropout"
    assert sum(mean for mean, _ in found.values()) == pytest.approx(1)
    assert all(0 <= spread < 0.3 for _, spread in found.values())
    assert "weight_decay" not in found
    assert importances(spec_of(), trials[:10], seed=0) == {}


def test_two_parameters_that_matter_together_are_a_pair_and_two_that_add_up_are_none() -> None:
    def together(params: dict[str, Any]) -> float:
        return 0.5 - float(params["dropout"] - 0.25) * (1 if params["optimizer"] == "sgd" else -1)

    def apart(params: dict[str, Any]) -> float:
        return float(0.3 + float(params["dropout"]) + 0.3 * (params["optimizer"] == "sgd"))

    crossed = interactions(spec_of(), drawn(300, together), seed=0)

    assert set(crossed[0][:2]) == {"dropout", "optimizer"}
    assert crossed[0][2] > 0.3
    assert all(share < 0.15 for _, _, share in interactions(spec_of(), drawn(300, apart), seed=0))
    assert interactions(spec_of(), drawn(300, lambda params: 0.5), seed=0) == ()


def test_a_region_that_never_works_is_told_in_words() -> None:
    def value(params: dict[str, Any]) -> float | None:
        if params["learning_rate"] > 0.02 and params["optimizer"] == "sgd":
            return None
        return 0.1

    (found,) = barren_regions(spec_of(), drawn(300, value), chance=0.9)

    assert "optimizer sgd" in found.replace("not adam", "sgd") or "optimizer not adam" in found
    assert "learning_rate over 0.0" in found
    assert "trials failed or ended near chance" in found


def test_trials_near_chance_count_as_failed_and_those_without_memory_do_not() -> None:
    near = drawn(200, lambda params: 0.88 if params["batch_norm"] else 0.1)
    (found,) = barren_regions(spec_of(), near, chance=0.9)
    assert found.startswith("batch_norm ")

    def greedy(each: TrialRecord) -> TrialRecord:
        return trial(each.number, validation=None, params=each.params, error="out of memory; a smaller batch may fit")

    large = [greedy(each) if each.params["batch_size"] == 128 else each for each in drawn(200, lambda params: 0.1)]
    assert barren_regions(spec_of(), large, chance=0.9) == ()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_next_to_no_trials_tell_nothing(count: int) -> None:
    found = space_findings(spec_of(), drawn(count, lambda params: 0.1), chance=0.9, seed=0)

    assert (found.borders, found.importances, found.interactions, found.barren) == ((), {}, (), ())


def test_pruned_and_running_trials_are_taken_for_what_they_are() -> None:
    trials = drawn(60, lambda params: params["dropout"])
    mixed = [
        trial(each.number, validation=each.validation, params=each.params, state=TrialState.PRUNED)
        if each.number % 3
        else each
        for each in trials
    ]
    running = trial(60, validation=None, state=TrialState.RUNNING)

    found = space_findings(spec_of(), [*mixed, running], chance=0.9, seed=0)

    assert next(iter(found.importances)) == "dropout"
