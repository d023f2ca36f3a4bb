from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from search.insight import comparison
from storage.records import Batch, Claim, NewStudy, ProposedTrial, StudyState, TrialState
from tests.search.commands.shelf import PARAMS, SPEC, Call, Shelf, ended_trial, result
from trainer.work import TestResult


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two winners on the same 270 rows: the first study's is wrong on 20 of them, the second's on 3 others."""
    looked: list[str] = []

    def outputs(store: Any, places: Any, side: comparison.Side, split: str, other: str) -> TestResult:
        looked.append(f"{side.name} on {split} for {other}")
        said = np.zeros(270, int)
        rows = slice(0, 20) if side.study.number == 1 else slice(20, 23)
        said[rows] = 1
        return TestResult(outputs=np.eye(2)[said], value=float(said.mean()), truth=np.zeros(270, int))

    monkeypatch.setattr(comparison, "_outputs", outputs)
    return looked


def other(shelf: Shelf, split_hash: str, **changes: Any) -> None:
    """A second study of the name, whose test error is 0.3."""
    spec = {**SPEC, **changes}
    study = shelf.store.submit(NewStudy(name="digits", spec=spec, text="", trials=4))
    claim = shelf.store.claim("dispatcher", study_id=study.id)
    assert isinstance(claim, Claim)
    shelf.store.started(claim, split_hash, spec)
    found = result(claim.study, "sqlite:///mlflow.db")
    found["best"] = {**found["best"], "test": 0.3, "test_interval": [0.25, 0.36]}
    _complete_trial(shelf, claim)
    shelf.store.finish(claim, StudyState.FINISHED, result=found)


def _complete_trial(shelf: Shelf, claim: Claim) -> None:
    at = datetime.now(UTC)
    proposed = ProposedTrial(number=1, params=PARAMS, settings={}, seed=1, started_at=at)
    shelf.store.optuna_trials(claim.study.id)
    shelf.store.record(claim, Batch(proposed=(proposed,)))
    shelf.store.record(claim, Batch(ended=(ended_trial(1, TrialState.COMPLETE, None, at),)))


def test_on_the_same_rows_the_better_one_is_named_with_how_sure_that_is(
    shelf: Shelf, call: Call, answers: list[str]
) -> None:
    shelf.finished()
    shelf.finished()
    document = call("compare", "digits@1", "digits@2", "--json").document
    assert document["better"] == "digits@2"
    value, low, high = document["difference"]
    assert value == pytest.approx(17 / 270)
    assert 0 < low < value < high
    assert document["p_value"] < 0.001
    assert (document["paired"], document["split"]) == (True, "test")
    assert answers == ["digits@1 on test for digits@2", "digits@2 on test for digits@1"]
    out = call("compare", "digits@1", "digits@2").out
    assert out.startswith("digits@2 is better than digits@1 by 0.0630 error")
    assert "McNemar's exact test" in " ".join(out.split())


def test_other_splits_are_compared_by_their_intervals_and_the_reader_is_told(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    other(shelf, "another hash", seed=7, budget={"trials": 9, "epochs": 30})
    document = call("compare", "digits@1", "digits", "--json").document
    assert document["paired"] is False
    assert document["better"] == "digits@1"
    assert document["difference"][0] == pytest.approx(0.017 - 0.3)
    assert {"key": "budget.trials", "first": 4, "second": 9} in document["settings"]
    assert "are not the same rows" in document["notes"][0]
    out = call("compare", "digits@1", "digits").out
    assert "budget.trials" in out and "4  against  9" in out


@pytest.mark.parametrize("changes", [{"metric": "log_loss"}, {"data": {"source": "wine"}}])
def test_what_cannot_be_compared_is_refused(shelf: Shelf, call: Call, changes: dict[str, Any]) -> None:
    shelf.finished()
    other(shelf, "hash", **changes)
    ended = call("compare", "digits@1", "digits")
    assert (ended.status, ended.out) == (2, "")
    assert "only studies of the same data with the same metric can be compared" in ended.err


def test_a_study_is_not_compared_with_itself(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    ended = call("compare", "digits", "digits@1")
    assert ended.status == 2
    assert "name two" in ended.err


def test_a_study_without_a_complete_trial_is_not_compared(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    shelf.queued()
    ended = call("compare", "digits@1", "digits")
    assert ended.status == 2
    assert "No trial is complete yet" in ended.err
