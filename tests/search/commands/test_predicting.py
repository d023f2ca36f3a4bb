"""predict over stand-ins for the reader and MLflow: which model it asks for, and what it prints."""

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from storage.records import MlflowRun, StudyState
from tests.search.commands.shelf import Call, Shelf
from trainer.data.dataset import Preprocessing

ANSWERS = [
    {"prediction": "cat, \x1b[1mbig", "probability_cat": 0.75},
    {"prediction": "dog", "probability_cat": float("nan")},
]
PREPROCESSING = Preprocessing(
    kind="table", task="classification", columns=({"name": "a", "kind": "number"},), classes=("cat", 1, True)
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the stand-ins were asked."""
    seen: list[Any] = []
    reader, publisher = types.ModuleType("trainer.data.load"), types.ModuleType("storage.publisher")

    def read_rows(path: Path, preprocessing: Preprocessing) -> list[dict[str, int]]:
        seen.append((str(path), preprocessing))
        return [{"a": 1}, {"a": 2}]

    class PublishedModel:
        def __init__(self, model: str, tracking: str) -> None:
            seen.append(model)
            self.preprocessing = json.loads(json.dumps(dataclasses.asdict(PREPROCESSING)))

        def answers(self, rows: Any) -> list[dict[str, Any]]:
            seen.append(len(rows))
            return ANSWERS

    monkeypatch.setattr(reader, "read_rows", read_rows, raising=False)
    monkeypatch.setattr(publisher, "PublishedModel", PublishedModel, raising=False)
    monkeypatch.setitem(sys.modules, "trainer.data.load", reader)
    monkeypatch.setitem(sys.modules, "storage.publisher", publisher)
    return seen


@pytest.fixture
def new_rows(folder: Path) -> None:
    (folder / "new.csv").touch()


@pytest.fixture
def run_known(monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> None:
    monkeypatch.setattr(type(shelf.store), "mlflow_run", lambda *_: MlflowRun(experiment_id="1", run_id="r1"))


def test_predictions_are_csv_with_the_classes_names_as_they_are(
    shelf: Shelf, new_rows: None, asked: list[Any], run_known: None, call: Call
) -> None:
    shelf.finished()
    ended = call("predict", "digits", "new.csv")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == 'prediction,probability_cat\n"cat, \x1b[1mbig",0.75\ndog,nan\n'
    assert asked == ["runs:/r1/champion", ("new.csv", PREPROCESSING), 2]
    assert [type(name) for name in asked[1][1].classes] == [str, int, bool]


def test_predictions_as_json_are_an_array_in_which_nan_is_null(
    shelf: Shelf, new_rows: None, asked: list[Any], run_known: None, call: Call
) -> None:
    shelf.finished()
    answers = call("predict", "digits", "new.csv", "--json").document
    assert answers == [ANSWERS[0], {"prediction": "dog", "probability_cat": None}]


def test_a_study_without_a_model_says_so(shelf: Shelf, new_rows: None, asked: list[Any], call: Call) -> None:
    shelf.running()
    assert call("predict", "digits", "new.csv").status == 2
    shelf.ended(StudyState.FAILED, "broken", error="none of 3 trials was good")
    assert call("predict", "broken", "new.csv").status == 1
    shelf.finished()
    unpublished = call("predict", "digits@2", "new.csv")
    assert (unpublished.status, unpublished.out) == (2, "")
    assert "not in MLflow yet" in unpublished.err
    assert asked == []


def test_a_file_that_is_not_there_is_said_before_a_model_is_fetched(
    shelf: Shelf, asked: list[Any], run_known: None, call: Call
) -> None:
    shelf.finished()
    ended = call("predict", "digits", "absent.csv")
    assert (ended.status, ended.out) == (2, "")
    assert "absent.csv" in ended.err
    assert asked == []
