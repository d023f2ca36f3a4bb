"""Asking the pruner at its decision epochs alone leaves out nothing that it would have decided."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from search.pruner import decision_epochs, make_pruner
from search.spec import StudySpec
from search.study import Proposals
from storage.records import TrialState


def study(pruner: str, epochs: int) -> StudySpec:
    return StudySpec.from_mapping(
        {
            "name": "s",
            "data": {"source": "digits"},
            "search": {"sampler": "random", "pruner": pruner},
            "budget": {"epochs": epochs},
        }
    )


@pytest.mark.parametrize(
    ("pruner", "epochs", "decisions"),
    [
        ("asha", 30, (2, 6, 18, 30)),  # from 30 / 27, rounded up
        ("asha", 27, (1, 3, 9, 27)),
        ("asha", 100, (4, 12, 36, 100)),
        ("asha", 5, (1, 3, 5)),
        ("hyperband", 30, (1, 3, 9, 27, 30)),  # from 30 / 27, rounded down
        ("hyperband", 100, (3, 9, 27, 81, 100)),
        ("median", 30, (3, 6, 9, 12, 15, 18, 21, 24, 27, 30)),
        ("median", 4, (1, 2, 3, 4)),
        ("none", 30, (30,)),
        ("asha", 1, (1,)),
        ("hyperband", 1, (1,)),
        ("median", 1, (1,)),
        ("none", 1, (1,)),
    ],
)
def test_decision_epochs_worked_out_by_hand(pruner: str, epochs: int, decisions: tuple[int, ...]) -> None:
    assert decision_epochs(study(pruner, epochs)) == decisions


def curve(rng: np.random.Generator, epochs: int) -> list[float]:
    """A validation metric that falls with noise; now and then it is not a number."""
    epoch = np.arange(1, epochs + 1)
    values = rng.uniform(0.01, 1) + rng.uniform(0.1, 2) / epoch + rng.normal(0, 0.1, epochs)
    values[rng.random(epochs) < 0.02] = math.nan
    return [float(value) for value in values]


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the oracle's, of a curve that begins with NaN
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 10, 26, 27, 28, 30, 64, 81])
@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median", "none"])
def test_decisions_are_those_of_optuna_asked_after_every_epoch(pruner: str, epochs: int) -> None:
    spec, rng = study(pruner, epochs), np.random.default_rng(epochs)
    proposals = Proposals(spec, (64,), "s")
    oracle = optuna.create_study(
        study_name="s", pruner=make_pruner(spec), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    decisions = decision_epochs(spec)
    curves: dict[int, list[float]] = {}
    live: dict[int, tuple[optuna.Trial, int]] = {}
    pruned: dict[int, int] = {}
    oracle_pruned: dict[int, int] = {}
    trials = 40
    while trials or live:
        # Four trials at a time, each going on to its next decision when its turn comes, in random order.
        while trials and len(live) < 4:
            proposed = proposals.ask()
            assert proposed is not None
            number = proposed.number
            curves[number], live[number] = curve(rng, epochs), (oracle.ask(), 0)
            trials -= 1
        number = int(rng.choice(list(live)))
        trial, done = live.pop(number)
        until = next(epoch for epoch in decisions if epoch > done)
        ended = False
        for epoch in range(done + 1, until + 1):
            value = curves[number][epoch - 1]
            proposals.report(number, epoch, value)
            if not ended:
                trial.report(value, epoch)
                if epoch < epochs and trial.should_prune():
                    ended, oracle_pruned[number] = True, epoch
        if until < epochs and proposals.should_prune(number):
            pruned[number] = until
        assert pruned == oracle_pruned
        if number in pruned:
            proposals.tell(number, TrialState.PRUNED)
            oracle.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif until == epochs:
            value = float(np.nanmin([*curves[number], 9.0]))
            proposals.tell(number, TrialState.COMPLETE, value)
            oracle.tell(trial, value)
        else:
            live[number] = (trial, until)
    assert bool(pruned) == (pruner != "none" and epochs > 1)


def test_successive_halving_keeps_a_third_at_each_rung() -> None:
    """Worked out by hand: constant curves, one after the other, rungs at 1, 3 and 9 of 27 epochs."""
    spec = study("asha", 27)
    proposals = Proposals(spec, (64,), "s")
    ended = []
    for value in (0.5, 0.6, 0.4, 0.3, 0.45):
        proposed = proposals.ask()
        assert proposed is not None
        last = 27
        for epoch in (1, 3, 9):
            proposals.report(proposed.number, epoch, value)
            if proposals.should_prune(proposed.number):
                last = epoch
                break
        ended.append(last)
        proposals.tell(proposed.number, TrialState.PRUNED if last < 27 else TrialState.COMPLETE, value)
    # 0.5 is alone; 0.6 is not the best of two; 0.4 of three and 0.3 of four are; 0.45 is not the best of five.
    assert ended == [27, 1, 27, 27, 1]
