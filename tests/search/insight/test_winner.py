"""A study's winner, loaded in this process: the same network, whether it was kept or is trained again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from neurosweep.errors import BadInputError, NeurosweepError, StudyFailedError
from search.checkpoint import BestNetwork
from search.checkpoint_store import CheckpointStore
from search.insight.winner import answers_to, load_winner, make_trainer, outputs_of, studied_data, winning_trial
from search.leaders import leaders
from search.places import Places
from storage.records import StudyRecord, StudyState, TrialRecord
from tests.search.dispatched import Study, alone
from tests.search.in_process_pool import InProcessPool
from trainer.data.dataset import DataRequest, Dataset
from trainer.data.load import load
from trainer.work import Metric


class Ended:
    """A study whose trials are done, with the places where its checkpoints are."""

    def __init__(self, folder: Path) -> None:
        self.data = load(DataRequest(source="iris"))
        self.worked = Study(folder, self.data, budget={"trials": 3, "epochs": 4})
        self.worked.work(InProcessPool())
        self.study: StudyRecord = self.worked.store.study(self.worked.id)
        self.trials: list[TrialRecord] = self.worked.trials()
        self.places = Places(home=folder / "home", database="", tracking="", ray=None)
        self.kept = Path(self.places.checkpoints_of(self.study.uid))
        shutil.copytree(folder / "best", self.kept / "best")

    def load(self, trial: TrialRecord, dataset: Dataset | None = None) -> dict[str, Any]:
        data = dataset or self.data
        winner = load_winner(self.places, self.study, trial, self.worked.spec, data)
        assert winner.trial == trial
        return winner.weights


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    ended = Ended(tmp_path_factory.mktemp("winner"))
    yield ended
    ended.worked.store.close()


@pytest.fixture
def ended(shared: Ended) -> Iterator[Ended]:
    """With its checkpoints as the search has left them, whatever a test does to them."""
    before = {file: file.read_bytes() for file in shared.kept.rglob("*") if file.is_file()}
    yield shared
    shutil.rmtree(shared.kept, ignore_errors=True)
    for file, data in before.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_the_kept_network_is_the_winners(ended: Ended) -> None:
    winner = leaders(ended.trials)[0]
    kept = CheckpointStore(str(ended.kept)).best()
    assert kept is not None
    changed = {name: array + 1 for name, array in kept.weights.items()}
    CheckpointStore(str(ended.kept)).keep_best(BestNetwork(trial=winner.number, validation=0.0, weights=changed))

    assert_same(ended.load(winner), changed)


@pytest.mark.parametrize("gone", ["all", "damaged", "another trial's"])
def test_a_network_that_was_not_kept_is_trained_again_to_the_same_numbers(ended: Ended, gone: str) -> None:
    winner = leaders(ended.trials)[0]
    as_searched = ended.load(winner)
    if gone == "all":
        shutil.rmtree(ended.kept)
    elif gone == "damaged":
        for file in ended.kept.rglob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-1])
    else:
        zeros: dict[str, Any] = {"output.weight": np.zeros((3, 4), np.float32)}
        CheckpointStore(str(ended.kept)).keep_best(BestNetwork(trial=winner.number + 1, validation=0.0, weights=zeros))

    assert_same(ended.load(winner), as_searched)


def test_any_other_complete_trial_can_be_loaded_too(ended: Ended) -> None:
    last = leaders(ended.trials)[-1]
    expected = alone(ended.worked, last).weights
    assert expected is not None

    assert_same(ended.load(last), expected)


def test_its_outputs_give_the_metric_that_the_search_has_recorded(ended: Ended) -> None:
    trial, data = leaders(ended.trials)[0], ended.data
    winner = load_winner(ended.places, ended.study, trial, ended.worked.spec, data)
    trainer = make_trainer(data)

    for split, recorded in ((data.train, trial.train), (data.validation, trial.validation)):
        told = outputs_of(winner, data, split, Metric.LOG_LOSS, trainer=trainer)
        assert told.value == pytest.approx(recorded, abs=1e-6)
        assert told.value == pytest.approx(metrics.log_loss(split.targets, told.outputs, labels=[0, 1, 2]), abs=1e-6)
        assert told.outputs.shape == (len(split), 3)


def test_it_answers_to_any_rows(ended: Ended) -> None:
    trial, data = leaders(ended.trials)[0], ended.data
    winner = load_winner(ended.places, ended.study, trial, ended.worked.spec, data)
    known = outputs_of(winner, data, data.validation, Metric.LOG_LOSS).outputs

    np.testing.assert_allclose(answers_to(winner, data, data.validation.inputs[:4]), known[:4], atol=1e-7)


def test_a_network_that_cant_be_trained_again_says_why(ended: Ended) -> None:
    shutil.rmtree(ended.kept)
    winner = leaders(ended.trials)[0]
    broken = dataclasses.replace(winner, settings={**winner.settings, "learning_rate": float("inf")})

    with pytest.raises(NeurosweepError, match=f"Trial {winner.number} could not be trained again: .*finite"):
        ended.load(broken)


def test_the_winner_is_the_studys_choice_even_where_another_validates_better(ended: Ended) -> None:
    best, second = leaders(ended.trials)[:2]
    chosen = dataclasses.replace(ended.study, result={"best": {"trial": second.number}})

    assert winning_trial(ended.study, ended.trials) == best
    assert winning_trial(chosen, ended.trials) == second


def test_a_study_without_a_complete_trial_has_no_winner(ended: Ended) -> None:
    failed = dataclasses.replace(ended.study, state=StudyState.FAILED, error="all trials diverged")

    with pytest.raises(BadInputError, match="No trial is complete yet"):
        winning_trial(ended.study, [])
    with pytest.raises(StudyFailedError, match="all trials diverged"):
        winning_trial(failed, [])


def test_the_data_are_those_of_the_study_or_it_is_said(ended: Ended) -> None:
    spec, dataset = studied_data(dataclasses.replace(ended.study, split_hash=ended.data.split_hash))
    assert spec == ended.worked.spec
    np.testing.assert_array_equal(dataset.validation.inputs, ended.data.validation.inputs)

    with pytest.raises(BadInputError, match="not those that this study has learnt from"):
        studied_data(dataclasses.replace(ended.study, split_hash="0" * 64))
