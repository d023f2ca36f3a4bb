"""Advice from figures that are made up: each piece appears where its evidence does, and says its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from search.insight.advice import Evidence, advise
from search.insight.curves import curve_of
from search.insight.findings import (
    Advice,
    Border,
    DataCurve,
    DataFindings,
    Level,
    Probe,
    SpaceFindings,
    Suspect,
    Verdict,
)
from search.insight.gains import Gain
from search.insight.seeds import seed_noise
from search.spec import StudySpec
from tests.search.insight.test_quick import levels
from tests.search.insight.trials import epoch_rows, extra_run, trial

NO_DATA = DataFindings(warnings=(), suspects=(), leaks={}, duplicates={}, classes={})
NO_SPACE = SpaceFindings(borders=(), importances={}, interactions=(), barren=(), good={})
PLATEAU = [1.0, 0.4, 0.3, 0.28, 0.27, 0.271, 0.269, 0.2701, 0.2699, 0.27]


def advice(verdict: Verdict, losses: list[float] = PLATEAU, space: dict[str, Any] | None = None, **changes: Any) -> Any:
    """By key."""
    spec = StudySpec.from_mapping({"name": "made-up", "data": {"source": "iris"}, "space": space or {}})
    winner = changes.pop("winner", trial(7, validation=0.02, train=0.018))
    usual: dict[str, Any] = {
        "spec": spec,
        "metric": "error",
        "levels": levels(),
        "winner": winner,
        "trials": [winner],
        "epochs": epoch_rows(7, losses),
        "gains": (),
        "seeds": None,
        "data_curve": None,
        "data": NO_DATA,
        "space": NO_SPACE,
        "validation_rows": 300,
    }
    found: dict[str, Advice] = {}
    for each in advise(verdict, Evidence(**{**usual, **changes})):
        assert each.change.endswith(".") and each.why.endswith(".")
        found.setdefault(each.key, each)
    return found


def gain(probe: Probe, size: float, half: float = 0.01) -> Gain:
    return Gain(probe=probe, amount=2, train=0.1, validation=Level(value=size, low=size - half, high=size + half))


def test_a_loss_that_jumps_and_stays_high_wants_a_lower_learning_rate() -> None:
    found = advice(Verdict.NOT_LEARNING, [2.3, 9.0, 4.0, 12.0, 5.0, 7.0, 3.0, 9.0])

    assert found["space.learning_rate"].up is False
    assert "jumped up" in found["space.learning_rate"].why


def test_losses_that_diverge_want_a_learning_rate_under_the_lowest_that_did() -> None:
    failed = [
        trial(at, validation=None, params={"learning_rate": 0.5 + at}, error="the loss was not finite in epoch 2")
        for at in range(4)
    ]

    found = advice(Verdict.UNDERFITTING, trials=[*failed, trial(7, validation=0.02)])["space.learning_rate"]

    assert found.up is False
    assert "In 4 of 5 trials" in found.why
    assert "0.05 to 0.5" in found.change


@pytest.mark.parametrize("losses", [[2.3 - 0.05 * at for at in range(10)], [2.3 - 0.002 * at for at in range(10)]])
def test_a_loss_that_still_falls_steadily_from_high_up_wants_a_higher_learning_rate(losses: list[float]) -> None:
    assert advice(Verdict.UNDERFITTING, losses)["space.learning_rate"].up is True


def test_a_loss_that_has_come_far_and_still_falls_wants_more_epochs() -> None:
    found = advice(Verdict.UNDERFITTING, [2.0 * 0.8**at for at in range(10)])

    assert found["budget.epochs"].up is True
    assert "60 epochs instead of 30" in found["budget.epochs"].change
    assert "space.learning_rate" not in found


def test_a_plateau_wants_neither() -> None:
    found = advice(Verdict.UNDERFITTING)

    assert not {"space.learning_rate", "budget.epochs"} & set(found)
    assert {"space.neurons"} <= set(found)


def test_what_extra_runs_have_shown_comes_first_and_is_marked() -> None:
    found = advice(Verdict.UNDERFITTING, gains=(gain(Probe.NEURONS, 0.1), gain(Probe.EPOCHS, 0.0)))

    assert next(iter(found)) == "space.neurons"
    assert found["space.neurons"].measured and found["space.neurons"].up
    assert "0.1 less on the validation split (0.09 to 0.11)" in found["space.neurons"].why
    assert "budget.epochs" not in found


def test_more_layers_where_the_winner_has_as_many_as_it_may() -> None:
    deep = trial(7, validation=0.3, params={"layers": 4, "neurons_2": 9, "neurons_3": 9, "neurons_4": 9})

    assert advice(Verdict.UNDERFITTING, winner=deep)["space.layers"].up is True
    assert "space.layers" not in advice(Verdict.UNDERFITTING)


def test_overfitting_wants_what_has_narrowed_the_gap_in_this_study() -> None:
    random = np.random.default_rng(0)
    trials = [
        trial(at, validation=0.1 - 0.1 * drop + 0.002 * random.random(), train=0.01, params={"dropout": float(drop)})
        for at, drop in enumerate(np.linspace(0, 0.5, 20))
    ]

    found = advice(Verdict.OVERFITTING, trials=trials, space={"weight_decay": 0.0})

    assert found["space.dropout"].up is True
    assert "rank correlation -" in found["space.dropout"].why
    assert "fixed at 0" in found["space.weight_decay"].why


def test_smaller_networks_are_advised_where_they_did_better() -> None:
    trials = [trial(at, validation=0.1 + at / 1000, weights=1000 * (at + 1)) for at in range(12)]

    assert advice(Verdict.OVERFITTING, trials=trials)["space.neurons"].up is False


def test_more_rows_are_promised_as_far_as_the_curve_does() -> None:
    law: dict[str, Any] = {"rows": (250, 500, 1000), "values": (0.3, 0.2, 0.15), "a": 4.0, "b": 0.5, "c": 0.0}
    needed = Level(value=3000, low=2500, high=4000)

    told = advice(Verdict.OVERFITTING, data_curve=DataCurve(**law, rows_for_target=needed, why_not=None))["data"]
    flat = DataCurve(**law | {"a": None, "b": None, "c": None}, rows_for_target=None, why_not="did not help")

    assert told.measured and "about 3,000 (2,500 to 4,000)" in told.change
    assert "from 0.3 to 0.15" in told.why
    assert "data" not in advice(Verdict.OVERFITTING, data_curve=flat)


def test_doubtful_labels_are_to_be_looked_at_first_with_their_rows() -> None:
    doubted = DataFindings(
        warnings=("Some labels may be wrong.",),
        suspects=(Suspect(split="train", row=41, label="a", predicted="b", loss=9.0),),
        leaks={},
        duplicates={},
        classes={},
    )

    assert "look at 41 first" in advice(Verdict.DONE, data=doubted)["data"].change


def test_noise_wants_a_validation_split_of_a_size_that_tells() -> None:
    wide = levels(validation=Level(value=0.02, low=0.0, high=0.14), test=Level(value=0.02, low=0.01, high=0.04))

    found = advice(Verdict.NOISE_BOUND, levels=wide)["data.split.validation"]

    assert f"about {int(np.ceil(300 * (0.07 / 0.045) ** 2)):,} instead of 300" in found.change


def test_an_over_searched_study_wants_fewer_trials() -> None:
    found = advice(Verdict.OVER_SEARCHED, levels=levels(test=0.2))

    assert found["budget.trials"].up is False
    assert "became 0.2 on new ones" in found["budget.trials"].why


def test_ends_of_the_space_move_only_where_they_can() -> None:
    def border(key: str, movable: bool) -> Border:
        return Border(key=key, end="upper", near=8, of=10, bound=0.5, movable=movable)

    space = SpaceFindings(
        borders=(border("dropout", True), border("momentum", False)),
        importances={},
        interactions=(),
        barren=(),
        good={},
    )

    evidence = Evidence(
        spec=StudySpec.from_mapping({"name": "made-up", "data": {"source": "iris"}}),
        metric="error",
        levels=levels(),
        winner=trial(7, validation=0.02),
        trials=[],
        epochs=[],
        gains=(),
        seeds=None,
        data_curve=None,
        data=NO_DATA,
        space=space,
        validation_rows=300,
    )
    keys = [each.key for each in advise(Verdict.OVERFITTING, evidence)]
    assert "space.dropout" in keys and "space.momentum" not in keys


def test_a_simpler_champion_is_offered_where_it_is_tied() -> None:
    trials = [trial(7, validation=0.02, weights=900), trial(8, validation=0.021, weights=30)]
    runs = [
        extra_run(Probe.SEED, number, at, validation=value)
        for number in (7, 8)
        for at, value in enumerate((0.02, 0.022, 0.025))
    ]

    found = advice(Verdict.DONE, trials=trials, seeds=seed_noise(trials, runs, winner=7))

    assert "champion: simplest, which takes trial 8" in found["champion"].change


def test_a_curve_of_two_epochs_says_nothing_and_one_that_is_not_finite_jumps() -> None:
    assert curve_of(epoch_rows(1, [1.0, 0.5]), 1) is None
    broken = curve_of(epoch_rows(1, [1.0, float("inf"), float("nan"), 2.0]), 1)
    assert broken is not None and broken.jumps == 3
    assert curve_of(epoch_rows(1, [float("nan")] * 4), 1) is not None
