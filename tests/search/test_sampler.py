"""Each of Optuna's samplers on a conditional space, asked and told by turns."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.sampler import Stream, derived_seed
from search.spec import PrunerKind, SamplerKind, StudySpec
from search.study import Proposals
from storage.records import ProposedTrial, TrialState
from trainer.settings import Activation, Settings

SAMPLERS = [kind.value for kind in SamplerKind]
INPUT = (1, 8, 8)

SMALL_GRID = {
    "layers": [1, 2],
    "neurons": [8, 16],
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": ["adam", "sgd"],
    "momentum": [0.5, 0.9],
    "weight_decay": 0.0,
    "dropout": 0.0,
    "batch_norm": False,
    "batch_size": 32,
    "schedule": "constant",
}
SMALL_GRID_SIZE = (2 + 2 * 2) * (1 + 2)
"""One or two layers of two widths each; Adam, or SGD with two momenta."""


def study(sampler: str, pruner: str = "none", seed: int = 0, **keys: Any) -> StudySpec:
    search = {"sampler": sampler, "pruner": pruner}
    return StudySpec.from_mapping(
        {"name": "s", "seed": seed, "data": {"source": "digits"}, "model": ["mlp", "cnn"], "search": search, **keys}
    )


def value_of(proposed: ProposedTrial) -> float:
    """A made-up metric: best at a learning rate of 0.01, ReLU and few layers."""
    settings = Settings.from_json(proposed.settings)
    return (
        abs(math.log10(settings.learning_rate) + 2)
        + (settings.activation is not Activation.RELU)
        + 0.1 * len(settings.neurons)
    )


def asked(proposals: Proposals, count: int, ahead: int = 1) -> list[ProposedTrial]:
    """Trials told one after the other, with so many under way."""
    trials: list[ProposedTrial] = []
    for _ in range(count):
        proposed = proposals.ask()
        assert proposed is not None
        trials.append(proposed)
        if len(trials) >= ahead:
            ended = trials[len(trials) - ahead]
            proposals.report(ended.number, 1, value_of(ended))
            if ended.number % 4 == 3:
                proposals.tell(ended.number, TrialState.PRUNED)
            else:
                proposals.tell(ended.number, TrialState.COMPLETE, value_of(ended))
    return trials


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_new_inside_the_space_and_the_same_for_the_same_seed(sampler: str) -> None:
    count = 16 if sampler == "gp" else 30  # a Gaussian process takes half a second for each, from the 14th on
    first, again, other = (asked(Proposals(study(sampler, seed=s), INPUT, "s"), count, ahead=2) for s in (0, 0, 1))

    params = [trial.params for trial in first]
    assert params == [trial.params for trial in again]
    assert [trial.optuna for trial in first] == [trial.optuna for trial in again]
    assert params != [trial.params for trial in other]
    assert len({json.dumps(each) for each in params}) == count
    for each in params:
        assert {type(value) for value in each.values()} <= {bool, int, float, str}
        assert 1 <= each["layers"] <= 4
        assert all(16 <= each[f"neurons_{k}"] <= 256 for k in range(1, each["layers"] + 1))
        assert f"neurons_{each['layers'] + 1}" not in each
        assert 1e-4 <= each["learning_rate"] <= 0.3
        assert each["batch_size"] in (32, 64, 128)
        assert type(each["batch_norm"]) is bool
        assert ("conv_layers" in each) == (each["model"] == "cnn")
        assert ("momentum" in each) == (each["optimizer"] == "sgd")


@pytest.mark.parametrize("pruner", [kind.value for kind in PrunerKind if kind is not PrunerKind.NONE])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_works_with_every_pruner(sampler: str, pruner: str) -> None:
    proposals = Proposals(study(sampler, pruner, budget={"epochs": 3}), INPUT, "s")
    ended = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0}
    for _ in range(14):
        proposed = proposals.ask()
        assert proposed is not None
        state = TrialState.COMPLETE
        for epoch in (1, 2, 3):
            proposals.report(proposed.number, epoch, value_of(proposed) / epoch)
            if epoch < 3 and proposals.judge([proposed.number]):
                state = TrialState.PRUNED
                break
        proposals.tell(proposed.number, state, value_of(proposed) / 3 if state is TrialState.COMPLETE else None)
        ended[state] += 1
    assert all(ended.values())


@pytest.mark.parametrize(("sampler", "seeds", "trials"), [("tpe", 4, 40), ("cmaes", 4, 40), ("gp", 1, 22)])
def test_a_sampler_that_learns_beats_random_values(sampler: str, seeds: int, trials: int) -> None:
    def late(kind: str) -> float:
        runs = [asked(Proposals(study(kind, seed=seed), INPUT, "s"), trials)[-6:] for seed in range(seeds)]
        return sum(value_of(trial) for run in runs for trial in run) / (6 * seeds)

    assert late(sampler) < 0.8 * late("random")


SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_sampler import INPUT, asked, study
from search.study import Proposals
print(json.dumps({s: [t.params for t in asked(Proposals(study(s), INPUT, "s"), 25)] for s in sys.argv[2:]}))
"""


def test_another_process_with_other_hashes_proposes_the_same() -> None:
    samplers = [each for each in SAMPLERS if each != "gp"]  # which would load torch, twice
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), *samplers]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    (one, one_noise), (other, other_noise) = (process.communicate() for process in processes)

    assert one_noise == other_noise == ""  # Optuna's notes stay off the screen
    assert one == other
    assert list(json.loads(one)) == samplers


@pytest.mark.parametrize("under_way", [1, 5, SMALL_GRID_SIZE])
def test_a_grid_tries_every_combination_once_and_ends(under_way: int) -> None:
    spec = study("grid", model="mlp", space=SMALL_GRID)
    proposals = Proposals(spec, INPUT, "s")

    trials = asked(proposals, SMALL_GRID_SIZE, ahead=under_way)

    assert len({json.dumps(trial.params) for trial in trials}) == SMALL_GRID_SIZE
    assert proposals.ask() is None
    assert proposals.ask() is None


def test_a_grid_does_not_try_a_failed_combination_again() -> None:
    proposals = Proposals(study("grid", model="mlp", space=SMALL_GRID), INPUT, "s")
    seen = set()
    while (proposed := proposals.ask()) is not None:
        seen.add(json.dumps(proposed.params))
        proposals.tell(proposed.number, TrialState.FAILED)
    assert len(seen) == SMALL_GRID_SIZE
    assert len(proposals.optuna_study.trials) == SMALL_GRID_SIZE + 1  # the last is the one that found the end


def test_one_fixed_network_is_a_grid_of_one() -> None:
    space = {**SMALL_GRID, "layers": 1, "neurons": 8, "optimizer": "adam", "momentum": 0.9}
    proposals = Proposals(study("grid", model="mlp", space=space), INPUT, "s")

    assert proposals.ask() is not None
    assert proposals.ask() is None


def test_a_sobol_sequence_spreads_evenly() -> None:
    """The numbers of 16 points of one Sobol sequence fall into 16 different sixteenths of each range."""
    space = {**SMALL_GRID, "optimizer": "adam", "layers": 1, "dropout": {"low": 0.0, "high": 0.8}}
    space["learning_rate"] = {"low": 0.001, "high": 0.1, "log": True}
    trials = asked(Proposals(study("qmc", model="mlp", space=space), INPUT, "s"), 17)[1:]  # the first one is random

    assert sorted(int(trial.params["dropout"] / 0.8 * 16) for trial in trials) == list(range(16))
    logs = [(math.log10(trial.params["learning_rate"]) + 3) / 2 for trial in trials]
    assert sorted(int(each * 16) for each in logs) == list(range(16))


def test_pickled_state_of_cmaes_stays_in_memory() -> None:
    proposals = Proposals(study("cmaes"), INPUT, "s")
    attrs: dict[str, Any] = {}
    for _ in range(20):
        proposed = proposals.ask()
        assert proposed is not None
        attrs |= proposed.attrs | proposals.tell(proposed.number, TrialState.COMPLETE, value_of(proposed))

    kept = {key for trial in proposals.optuna_study.trials for key in trial.system_attrs}
    assert any(key.startswith("cma:optimizer") for key in kept)
    assert "cma:generation" in attrs
    assert not any(key.startswith("cma:optimizer") for key in attrs)


def test_seeds_of_trials_and_samplers_are_different_and_below_two_to_the_63() -> None:
    seeds = {derived_seed(seed, stream, number) for seed in (0, 1) for stream in Stream for number in range(100)}

    assert len(seeds) == 2 * len(Stream) * 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_range_on_a_grid_offers_its_values_only() -> None:
    space = {**SMALL_GRID, "layers": 1, "optimizer": "adam", "neurons": {"low": 16, "high": 256, "log": True}}
    proposals = Proposals(study("grid", model="mlp", space=space), INPUT, "s")

    widths = [trial.params["neurons_1"] for trial in asked(proposals, 5)]

    assert sorted(widths) == [16, 32, 64, 128, 256]
    assert proposals.ask() is None
