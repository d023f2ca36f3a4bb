"""The pruners beside Optuna's where they ask one by one, and what packs add."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner, SuccessiveHalvingPruner

from search.pruner import Pruner, make_pruner
from search.spec import StudySpec


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
    ("pruner", "epochs", "looks"),
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
def test_looks_worked_out_by_hand(pruner: str, epochs: int, looks: tuple[int, ...]) -> None:
    assert make_pruner(study(pruner, epochs)).looks == looks


def curve(rng: np.random.Generator, epochs: int) -> dict[int, float]:
    """A validation metric that falls with noise."""
    epoch = np.arange(1, epochs + 1)
    values = rng.uniform(0.01, 1) + rng.uniform(0.1, 2) / epoch + rng.normal(0, 0.1, epochs)
    return {int(n): float(value) for n, value in zip(epoch, values, strict=True)}


def up_to(values: dict[int, float], look: int) -> dict[int, float]:
    return {epoch: value for epoch, value in values.items() if epoch <= look}


OPTUNAS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "asha": lambda epochs: SuccessiveHalvingPruner(min_resource=-(-epochs // 27), reduction_factor=3),
    "median": lambda epochs: MedianPruner(
        n_startup_trials=5, n_warmup_steps=max(1, epochs // 10), interval_steps=max(1, epochs // 10)
    ),
}


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 10, 26, 27, 28, 30, 64, 81])
@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_judged_one_by_one_decisions_are_those_of_optuna_asked_after_every_epoch(pruner: str, epochs: int) -> None:
    ours, rng = make_pruner(study(pruner, epochs)), np.random.default_rng(epochs)
    sampler = optuna.samplers.RandomSampler(seed=0)
    oracle = optuna.create_study(pruner=OPTUNAS[pruner](epochs), sampler=sampler)
    curves: dict[int, dict[int, float]] = {}
    live: dict[int, tuple[optuna.Trial, int]] = {}
    ended = 0
    while len(curves) < 40 or live:
        # Four trials at a time, each going on to its next look when its turn comes, in random order.
        while len(curves) < 40 and len(live) < 4:
            live[len(curves)] = oracle.ask(), 0
            curves[len(curves)] = curve(rng, epochs)
        number = int(rng.choice(list(live)))
        trial, done = live.pop(number)
        look = next(epoch for epoch in ours.looks if epoch > done)
        stopped_at = None
        for epoch in range(done + 1, look + 1):
            trial.report(curves[number][epoch], epoch)
            if stopped_at is None and epoch < epochs and trial.should_prune():
                stopped_at = epoch
        if look < epochs:
            assert (ours.judge({number: up_to(curves[number], look)}) == {number}) == (stopped_at is not None)
            assert stopped_at in (None, look)
        if stopped_at is not None:
            ended += 1
            oracle.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif look == epochs:
            ours.complete(curves[number])
            oracle.tell(trial, min(curves[number].values()))
        else:
            live[number] = trial, look
    assert bool(ended) == (epochs > 1)


def test_successive_halving_keeps_a_third_at_each_rung() -> None:
    """Worked out by hand: constant curves, one after the other."""
    pruner = make_pruner(study("asha", 27))
    kept = [not pruner.judge({trial: {1: value}}) for trial, value in enumerate((0.5, 0.6, 0.4, 0.3, 0.45))]
    # 0.5 is alone; 0.6 is not the best of two; 0.4 of three and 0.3 of four are; 0.45 is not the best of five.
    assert kept == [True, False, True, True, False]


def test_trials_of_a_pack_are_compared_with_each_other_before_any_goes_on() -> None:
    pruner = make_pruner(study("asha", 27))
    pack = {trial: {1: value} for trial, value in enumerate((0.5, 0.6, 0.4, 0.3, 0.45, 0.7))}
    assert pruner.judge(pack) == {0, 1, 4, 5}


def test_trials_of_a_pack_may_be_at_different_rungs() -> None:
    pruner = make_pruner(study("asha", 27))
    pruner.judge({trial: {1: 0.1 * trial} for trial in range(1, 10)})
    # At rung 1 only 0.1, 0.2 and 0.3 went on; at rung 3 the better of two does; a newcomer has to beat rung 1's third.
    judged = pruner.judge({1: {1: 0.1, 3: 0.1}, 2: {1: 0.2, 3: 0.2}, 10: {1: 0.05}, 11: {1: 0.9}})
    assert judged == {2, 11}


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1, max_size=8))
def test_of_all_that_came_to_a_rung_the_best_third_has_gone_on(packs: list[list[float]]) -> None:
    pruner, number = make_pruner(study("asha", 27)), 0
    seen: list[float] = []
    for values in packs:
        pack = {number + index: {1: value} for index, value in enumerate(values)}
        number += len(pack)
        seen += values
        bar = sorted(seen)[max(1, len(seen) // 3) - 1]
        assert pruner.judge(pack) == {trial for trial, curve in pack.items() if curve[1] > bar}


@pytest.mark.parametrize("kind", ["asha", "hyperband", "median", "none"])
def test_a_restored_pruner_judges_as_the_one_before_would_have(kind: str) -> None:
    rng, spec = np.random.default_rng(5), study(kind, 27)
    before, restored = make_pruner(spec), make_pruner(spec)
    for trial in range(40):
        values = curve(rng, 27)
        last = next((look for look in before.looks[:-1] if before.judge({trial: up_to(values, look)})), 27)
        if last == 27:
            before.complete(values)
        restored.restore(trial, up_to(values, last), complete=last == 27)
    assert verdicts(before) == verdicts(restored)


def verdicts(pruner: Pruner) -> list[bool]:
    levels = np.linspace(0, 2, 50)
    return [bool(pruner.judge({100 + n: {1: level, 2: level}})) for n, level in enumerate(levels)]


def test_hyperband_deals_trials_out_so_that_each_bracket_costs_about_the_same() -> None:
    """With constant curves nothing is better than anything else: what ends, ends at its bracket's first rung."""
    pruner, rng = make_pruner(study("hyperband", 27)), np.random.default_rng(0)
    epochs = dict.fromkeys(pruner.looks, 0)
    for trial in range(2_000):
        value = float(rng.random())
        last = next(
            (look for look in pruner.looks[:-1] if pruner.judge({trial: dict.fromkeys(range(1, look + 1), value)})), 27
        )
        epochs[last] += 1
    assert epochs[1] > epochs[3] > epochs[9] > 20  # many are tried briefly, some are given time before they are judged
    assert epochs[27] > 150  # those of the last bracket, which nobody ends, and the best of the others
