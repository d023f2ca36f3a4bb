"""The winner that other seeds choose: which one it is, what is trained for it, and what a resume trains again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurosweep.errors import InterruptedStudyError
from search import outcome
from search.insight.extra_plan import CONTENDERS, SEEDS
from search.insight.seeds import seed_noise
from search.leaders import leaders
from search.spec import Champion
from storage.records import ExtraRun, Probe, TrialRecord
from tests.search.test_outcome import Ended


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of an ending's time."""
    monkeypatch.setattr(outcome, "draw", lambda folder, **drawn: None)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Its trials are the same for all tests."""
    made = Ended(tmp_path_factory.mktemp("ended"), "iris", "log_loss")
    yield made
    made.store.close()


def choosing(ended: Ended, rule: str, **changes: Any) -> dict[str, Any]:
    return ended.conclude(spec=ended.spec.model_copy(update={"champion": Champion(rule)}), **changes)


def with_runs(ended: Ended, monkeypatch: pytest.MonkeyPatch, means: dict[int, float]) -> None:
    """The seed runs are there already, 0.01 apart about their mean."""
    runs = [
        ExtraRun(
            probe=Probe.SEED,
            trial=trial,
            amount=float(number + 1),
            settings={},
            seed=number,
            train=0.0,
            validation=mean + 0.01 * (number - 2),
            rows=10,
            epochs=9,
            seconds=0.1,
            weights=1,
        )
        for trial, mean in means.items()
        for number in range(SEEDS)
    ]
    monkeypatch.setattr(ended.store, "extra_runs", lambda study: runs)


def by_weights(trials: Sequence[TrialRecord]) -> list[int]:
    return [trial.number for trial in sorted(trials, key=lambda trial: trial.weights)]


def test_simplest_is_the_smallest_of_those_that_are_tied_and_best_the_one_with_the_best_mean(
    ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [trial.number for trial in leaders(ended.trials)]
    smallest, second, *others = by_weights(leaders(ended.trials)[:CONTENDERS])
    means = {smallest: 0.9, second: 0.301, **dict.fromkeys(others, 0.302), others[-1]: 0.3}
    with_runs(ended, monkeypatch, means)

    best, simplest = choosing(ended, "best"), choosing(ended, "simplest")

    assert (best["best"]["trial"], simplest["best"]["trial"]) == (others[-1], second)
    assert set(best["ties"]) == set(simplest["ties"]) == {second, *others}
    assert [leader["trial"] for leader in simplest["leader"]] == order[:5]
    assert f"trial {second} is the smallest of the 4 best that these seeds can't tell apart" in simplest["worth"][-1]
    assert "its mean is 0.301" in simplest["worth"][-1]
    assert f"trial {others[-1]} is the best: its mean is 0.3" in best["worth"][-1]
    assert ended.openings()[-2:] == [(others[-1], "the winner"), (second, "the winner")]


def test_without_the_key_the_best_by_validation_wins_and_nothing_more_is_trained(ended: Ended) -> None:
    result = ended.conclude()
    assert result["best"]["trial"] == ended.winner.number
    assert result["ties"] == []
    assert ended.store.extra_runs(ended.claim.study.id) == []


def test_the_five_best_are_trained_from_five_seeds_each_before_the_test_split_is_opened(tmp_path: Path) -> None:
    ended, stages = Ended(tmp_path, "iris", "log_loss"), list[str]()
    claim = ended.claim
    looks = ended.pool.tests

    def stop_after_seven(stage: str) -> None:
        stages.append(stage)
        if len(stages) == 7:
            raise InterruptedStudyError("Told to stop.")

    with pytest.raises(InterruptedStudyError):
        choosing(ended, "simplest", on_stage=stop_after_seven)
    assert len(ended.store.extra_runs(claim.study.id)) == 7
    assert (ended.pool.tests, ended.openings()) == (looks, [])

    trained = len(ended.pool.submitted)
    result = choosing(ended, "simplest", on_stage=stages.append)
    runs = ended.store.extra_runs(claim.study.id)
    contenders = [trial.number for trial in leaders(ended.trials)[:CONTENDERS]]
    assert sorted((run.trial, run.amount) for run in runs) == [
        (trial, seed) for trial in sorted(contenders) for seed in range(1, SEEDS + 1)
    ]
    noise = seed_noise(ended.trials, runs, winner=ended.winner.number)
    assert noise is not None
    assert result["best"]["trial"] == noise.simplest
    assert result["best"]["validation"] == ended.trials[noise.simplest].validation
    assert ended.openings() == [(noise.simplest, "the winner")]
    # What was known is not trained again; the winner itself is where its weights were not kept.
    again = noise.simplest != ended.winner.number
    assert len(ended.pool.submitted) - trained == CONTENDERS * SEEDS - 7 + again
    assert stages[7] == "training the best again from other seeds: 1 of 18"
    assert stages[-1] == "testing the winner"

    resumed = dataclasses.replace(claim, study=dataclasses.replace(claim.study, result=result))
    same = choosing(ended, "simplest", claim=resumed)
    assert {**same, "seconds": 0} == {**result, "seconds": 0}
    assert len(ended.openings()) == 1
    ended.store.close()


def test_the_champion_is_the_network_that_was_chosen(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = leaders(ended.trials)[0].number, leaders(ended.trials)[CONTENDERS - 1].number
    ended.conclude()
    before = {name: array.clone() for name, array in ended.program().state_dict().items()}
    with_runs(ended, monkeypatch, {first: 0.4, last: 0.1})
    assert choosing(ended, "best")["best"]["trial"] == last
    after = ended.program().state_dict()
    assert any(
        before[name].shape != array.shape or not np.array_equal(before[name], array) for name, array in after.items()
    )
    assert ended.checkpoint.best is not None
    assert ended.checkpoint.best.trial == last
