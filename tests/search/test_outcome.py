"""The end of a study: who wins, what is measured of the winner, and what is left in its folder."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

from neurosweep.errors import NeurosweepError
from search.checkpoint import BestNetwork, Checkpoint
from search.checkpoint_store import CheckpointStore
from search.dispatcher import Dispatcher, Signals
from search.no_gain import Noise
from search.outcome import conclude
from search.spec import StudySpec, data_request
from search.study import Proposals
from storage.records import Claim, NewStudy, TrialRecord, TrialState
from storage.store import Store
from tests.search.in_process_pool import InProcessPool, packing
from trainer.data.dataset import Dataset
from trainer.data.load import load
from trainer.work import Metric


class Ended:
    """A study whose trials are done, before its end is drawn from them."""

    def __init__(self, folder: Path, source: str, metric: str, pruner: str = "none", **keys: Any) -> None:
        mapping: dict[str, Any] = {
            "name": source,
            "data": {"source": source},
            "metric": metric,
            "search": {"sampler": "random", "pruner": pruner},
            "space": {"layers": 1, "neurons": {"low": 8, "high": 32}, "learning_rate": {"low": 0.003, "high": 0.03}},
            "budget": {"trials": 6, "epochs": 9},
            **keys,
        }
        trials = mapping["budget"]["trials"]
        spec = StudySpec.from_mapping(mapping)
        self.dataset: Dataset = load(data_request(spec))
        self.spec = spec.resolved(self.dataset.task)
        self.metric = Metric(metric)
        self.folder = folder
        self.store = Store.open(f"sqlite:///{folder}/n.db")
        study = self.store.submit(NewStudy(name=source, spec=self.spec.to_mapping(), text="", trials=trials))
        claim = self.store.claim("dispatcher", study_id=study.id)
        assert claim is not None
        self.claim: Claim = claim
        self.pool = InProcessPool()
        self.pool.load(self.dataset)
        self.checkpoint = self.kept()
        self.proposals = Proposals(self.spec, self.dataset.input_shape, source, self.store.optuna_trials(study.id))
        Dispatcher(
            claim=claim,
            spec=self.spec,
            metric=self.metric,
            store=self.store,
            pool=self.pool,
            proposals=self.proposals,
            checkpoint=self.checkpoint,
            packing=packing(claim.study.trials, self.pool, self.dataset),
            name_worker=str,
            known=(),
            known_epochs=(),
            on_progress=lambda progress: None,
            signals=Signals(stop=lambda: False, cancel=lambda: False, renew=lambda: None),
            started=time.monotonic(),
            noise=Noise(metric=self.metric, rows=len(self.dataset.validation)),
        ).work()
        self.trials: list[TrialRecord] = self.store.trials(study.id)

    def kept(self) -> Checkpoint:
        """As an engine that starts now finds it."""
        return Checkpoint(CheckpointStore(str(self.folder)))

    def openings(self) -> list[tuple[int | None, str]]:
        return [(look.trial, look.reason) for look in self.store.openings(self.claim.study.id)]

    @property
    def winner(self) -> TrialRecord:
        complete = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        return min(complete, key=lambda trial: (trial.validation, trial.number))

    def conclude(self, **changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "claim": self.claim,
            "spec": self.spec,
            "metric": self.metric,
            "dataset": self.dataset,
            "pool": self.pool,
            "proposals": self.proposals,
            "checkpoint": self.checkpoint,
            "store": self.store,
            "trials": self.trials,
            "epochs": self.store.epochs(self.claim.study.id),
            "folder": self.folder,
            "started": time.monotonic() - 12.5,
        }
        result = conclude(**{**arguments, **changes})
        assert json.loads(json.dumps(result, allow_nan=False)) == result, "it is kept as JSON"
        return result

    def program(self) -> Any:
        return torch.export.load(io.BytesIO((self.folder / "champion" / "network.pt2").read_bytes())).module()


@pytest.fixture
def iris(tmp_path: Path) -> Iterator[Ended]:
    ended = Ended(tmp_path, "iris", "error")
    yield ended
    ended.store.close()


def test_the_result_has_the_winner_its_errors_on_three_splits_and_the_counts(iris: Ended) -> None:
    result, winner, data = iris.conclude(), iris.winner, iris.dataset
    best = result["best"]

    assert (result["study"], result["state"], result["metric"]) == ("iris", "finished", "error")
    assert result["trials"] == {"total": 6, "complete": 6, "pruned": 0, "failed": 0}
    assert (best["trial"], best["params"], best["weights"]) == (winner.number, winner.params, winner.weights)
    assert (best["train"], best["validation"]) == (winner.train, winner.validation)
    assert (best["epochs"], best["best_epoch"]) == (winner.epochs, winner.best_epoch)
    assert best["model"] == "models:/iris@champion"
    assert result["splits"] == {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    assert 12.5 <= result["seconds"] < 60
    assert any("rows that no trial has seen" in sentence for sentence in result["worth"])
    assert iris.pool.tests == 1


def test_the_champions_program_gives_the_errors_that_the_result_tells(iris: Ended) -> None:
    """The exported network itself, asked about each split; scikit-learn counts."""
    best, program = iris.conclude()["best"], iris.program()

    for name in ("train", "validation", "test"):
        split = getattr(iris.dataset, name)
        answers = program(torch.from_numpy(split.inputs)).argmax(1).numpy()
        assert best[name] == pytest.approx(1 - metrics.accuracy_score(split.targets, answers)), name
    low, high = best["test_interval"]
    assert low <= best["test"] <= high


def test_a_regressions_champion_gives_the_errors_in_the_targets_units(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "diabetes", "mae")
    result, data = ended.conclude(), ended.dataset
    scale, shift = data.preprocessing.target_std, data.preprocessing.target_mean
    raw = data.test.targets.astype(float) * scale + shift

    answers = ended.program()(torch.from_numpy(data.test.inputs)).detach().numpy()[:, 0] * scale + shift
    assert result["best"]["test"] == pytest.approx(metrics.mean_absolute_error(raw, answers), rel=1e-4)
    low, high = result["best"]["test_interval"]
    assert low < result["best"]["test"] < high
    assert (ended.folder / "plots" / "predicted_against_true.png").exists()


def test_of_equal_trials_the_earliest_wins_and_only_complete_ones_can(iris: Ended) -> None:
    values = {0: 0.3, 1: 0.1, 2: 0.1, 3: 0.0, 4: 0.05, 5: 0.2}
    iris.trials = [dataclasses.replace(trial, validation=values[trial.number]) for trial in iris.trials]
    iris.trials[3] = dataclasses.replace(iris.trials[3], state=TrialState.PRUNED)
    iris.trials[4] = dataclasses.replace(iris.trials[4], state=TrialState.FAILED)
    iris.trials[5] = dataclasses.replace(iris.trials[5], validation=None)
    iris.trials.reverse()

    result = iris.conclude()

    assert result["best"]["trial"] == 1
    assert [leader["trial"] for leader in result["leader"]] == [1, 2, 0]
    assert result["trials"] == {"total": 6, "complete": 4, "pruned": 1, "failed": 1}


def test_at_most_five_lead(iris: Ended) -> None:
    assert len(iris.conclude()["leader"]) == 5


def test_a_resumed_study_with_the_same_winner_leaves_the_test_split_shut(iris: Ended) -> None:
    earlier = {"best": {"trial": iris.winner.number, "test": 0.125, "test_interval": [0.1, 0.2]}}
    claim = dataclasses.replace(iris.claim, study=dataclasses.replace(iris.claim.study, result=earlier))

    best = iris.conclude(claim=claim)["best"]

    assert (best["test"], best["test_interval"]) == (0.125, [0.1, 0.2])
    assert iris.pool.tests == 0
    assert iris.openings() == []
    assert (iris.folder / "champion" / "network.pt2").exists()


def test_a_resumed_study_with_another_winner_opens_it_for_that_one_and_says_so(iris: Ended) -> None:
    earlier = {"best": {"trial": iris.winner.number + 1, "test": 0.875, "test_interval": [0.8, 0.9]}}
    claim = dataclasses.replace(iris.claim, study=dataclasses.replace(iris.claim.study, result=earlier))

    result = iris.conclude(claim=claim)

    assert result["best"]["test"] < 0.8
    assert iris.pool.tests == 1
    assert f"opened before, for trial {iris.winner.number + 1}" in result["worth"][-1]
    assert iris.openings() == [(iris.winner.number, "the winner")]


def test_a_sealed_study_has_no_test_figures_and_no_champion_whatever_it_had_before(iris: Ended) -> None:
    for earlier in (None, {"best": {"trial": iris.winner.number + 1, "test": None, "test_interval": None}}):
        sealed = dataclasses.replace(iris.claim.study, sealed=True, result=earlier)
        result = iris.conclude(claim=dataclasses.replace(iris.claim, study=sealed))
        best = result["best"]
        assert (best["trial"], best["validation"]) == (iris.winner.number, iris.winner.validation)
        assert (best["test"], best["test_interval"], best["model"]) == (None, None, None)
        assert result["worth"] == ["The test split stays shut until the last round has chosen the winner of them all."]
    assert (iris.pool.tests, iris.openings()) == (0, [])
    assert not (iris.folder / "champion").exists()
    # Unsealed, it is judged for the first time.
    judged = dataclasses.replace(iris.claim.study, tree="1", result=result)
    told = iris.conclude(claim=dataclasses.replace(iris.claim, study=judged))
    assert told["best"]["test"] is not None
    assert iris.openings() == [(iris.winner.number, "the winner of all rounds")]
    assert not any("opened before" in sentence for sentence in told["worth"])


def test_each_look_at_the_test_split_is_recorded_before_it(iris: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    test = iris.pool.test

    def watched(*arguments: Any) -> Any:
        looked.append(iris.openings())
        return test(*arguments)

    monkeypatch.setattr(iris.pool, "test", watched)
    iris.conclude()
    iris.conclude()
    look = (iris.winner.number, "the winner")
    assert looked == [[look], [look]]  # the same look again tells nothing new


@pytest.mark.parametrize("kept", ["nothing", "another trial's", "damaged"])
def test_lost_weights_are_trained_again_to_the_same_network(iris: Ended, kept: str) -> None:
    before = iris.conclude()["best"]
    weights = iris.program().state_dict()
    networks = iris.folder / "best"
    if kept == "nothing":
        shutil.rmtree(networks)
    elif kept == "damaged":
        newest = max(networks.iterdir(), key=lambda path: int(path.stem))
        newest.write_bytes(newest.read_bytes()[:-7])
    else:
        other = BestNetwork(trial=iris.winner.number + 1, validation=0.0, weights={"x": np.zeros(2, np.float32)})
        iris.checkpoint.keep(other)
    checkpoint = iris.kept()

    after = iris.conclude(checkpoint=checkpoint)["best"]

    assert after == before
    for name, array in iris.program().state_dict().items():
        np.testing.assert_array_equal(array, weights[name])
    assert checkpoint.best is not None
    assert (checkpoint.best.trial, checkpoint.best.validation) == (iris.winner.number, iris.winner.validation)


def test_a_winner_that_can_not_be_trained_again_is_an_error_that_says_why(iris: Ended) -> None:
    shutil.rmtree(iris.folder / "best")
    iris.pool.deadly = lambda work: True

    with pytest.raises(
        NeurosweepError, match=f"trial {iris.winner.number}, could not be trained again: 3 workers died"
    ):
        iris.conclude(checkpoint=iris.kept())
    assert iris.pool.tests == 0


def test_a_test_metric_that_is_not_finite_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(60, 2))
    numbers[55, 0] = 1e30  # in the test split: its square is past float32
    folds = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    lines = [f"{a},{b},{fold}" for (a, b), fold in zip(numbers, folds, strict=True)]
    (tmp_path / "far.csv").write_text("\n".join(["a,y,fold", *lines]))
    data = {"source": str(tmp_path / "far.csv"), "target": "y", "split": {"column": "fold"}}
    ended = Ended(tmp_path, "far", "mse", data=data, space={"layers": 1, "neurons": 8, "activation": "leaky_relu"})
    with pytest.raises(NeurosweepError, match=r"far\.csv: .* no finite mse on the test split"):
        ended.conclude()
    ended.store.close()


def test_the_champions_folder_has_all_that_it_takes_to_answer_for_raw_rows(iris: Ended) -> None:
    iris.conclude()
    champion = iris.folder / "champion"

    assert {file.name for file in champion.iterdir()} == {"network.pt2", "preprocessing.json", "example.json"}
    preprocessing = json.loads((champion / "preprocessing.json").read_text(encoding="utf-8"))
    example = json.loads((champion / "example.json").read_text(encoding="utf-8"))
    assert [column["name"] for column in preprocessing["columns"]] == list(example[0])
    # The rules of `Preprocessing`, by hand: the first raw row becomes the first row of the train split.
    encoded = [(example[0][column["name"]] - column["mean"]) / column["std"] for column in preprocessing["columns"]]
    np.testing.assert_allclose(encoded, iris.dataset.train.inputs[0], rtol=1e-5)
    assert preprocessing["classes"] == list(iris.dataset.preprocessing.classes)


def test_images_have_raw_images_as_their_example(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "digits", "error", budget={"trials": 1, "epochs": 1})
    ended.conclude()

    example = np.load(tmp_path / "champion" / "example.npy", allow_pickle=False)
    np.testing.assert_array_equal(example, ended.dataset.example)


def test_the_plots_are_beside_the_champion(iris: Ended) -> None:
    iris.conclude()
    names = {file.name for file in (iris.folder / "plots").iterdir()}
    assert {"history.png", "learning_curves.png", "parallel_coordinates.html", "confusion_matrix.png"} <= names
