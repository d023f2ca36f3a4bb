"""explain over small real studies: which page it writes, of which network, from which rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.places import Places
from storage.records import StudyRecord, StudyState
from tests.search.commands.shelf import Call, Shelf
from tests.search.test_outcome import Ended

SPACE = {"layers": 1, "neurons": 8, "learning_rate": 0.01}


class Searched:
    """A study whose trials are done, in the database that a command in this folder opens."""

    def __init__(self, folder: Path, source: str, metric: str) -> None:
        self.home = folder / ".neurosweep"
        self.home.mkdir()
        self.ended = Ended(folder, source, metric, budget={"trials": 1, "epochs": 3}, space=SPACE)
        self.arguments = ("--database", str(folder / "n.db"))

    @property
    def study(self) -> StudyRecord:
        return self.ended.store.study(self.ended.claim.study.id)

    @property
    def kept(self) -> Path:
        return self.home / "studies" / self.study.uid / "pages" / "explain.html"

    def finish(self) -> None:
        self.ended.store.finish(self.ended.claim, StudyState.FINISHED, result=self.ended.conclude())


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Studies of which MLflow was told, by a stand-in for the publisher."""
    seen: list[int] = []

    def drain(_places: Places, study_id: int) -> str | None:
        seen.append(study_id)
        return "MLflow does not answer"

    monkeypatch.setattr("search.commands.explaining.drain", drain)
    return seen


@pytest.fixture
def iris(folder: Path, published: list[int]) -> Iterator[Searched]:
    searched = Searched(folder, "iris", "log_loss")
    yield searched
    searched.ended.store.close()


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_tables_page_is_kept_with_the_study_and_told_to_mlflow(
    iris: Searched, published: list[int], call: Call
) -> None:
    iris.finish()
    before = iris.ended.store.pending_facts(iris.study.id)

    ended = call("explain", "iris", "--json", *iris.arguments)

    assert (ended.status, ended.document) == (0, {"page": str(iris.kept)})
    assert ended.err.splitlines()[-2:] == ["iris: publishing to MLflow", "MLflow does not answer"]
    assert published == [iris.study.id]
    assert iris.ended.store.pending_facts(iris.study.id) == before + 1
    data = data_of(iris.kept)
    assert data["columns"][0]["name"] == "sepal length (cm)"
    assert (data["study"], data["split"], len(data["rows"]["ids"])) == ("iris", "test", len(iris.ended.dataset.test))


def test_each_look_at_the_test_split_is_recorded_with_its_reason(iris: Searched, call: Call) -> None:
    iris.finish()
    known = len(iris.ended.store.openings(iris.study.id))

    assert call("explain", "iris", *iris.arguments).status == 0

    *_, last = openings = iris.ended.store.openings(iris.study.id)
    assert len(openings) == known + 1
    assert (last.trial, last.reason) == (iris.ended.winner.number, "explain")


def test_before_the_studys_end_the_test_split_stays_shut(iris: Searched, call: Call) -> None:
    assert call("explain", "iris", *iris.arguments).status == 0

    data = data_of(iris.kept)
    assert (data["split"], data["rows"]["ids"]) == ("validation", iris.ended.dataset.validation.rows.tolist())
    assert iris.ended.store.openings(iris.study.id) == []


def test_the_page_can_be_written_elsewhere_as_well(iris: Searched, folder: Path, call: Call) -> None:
    ended = call("explain", "iris", "-o", "mine.html", *iris.arguments)

    assert (ended.status, ended.out) == (0, f"{folder / 'mine.html'}\n")
    assert (folder / "mine.html").read_bytes() == iris.kept.read_bytes()


def test_the_same_study_gives_the_same_page(iris: Searched, call: Call) -> None:
    pages = []
    for _ in range(2):
        assert call("explain", "iris", *iris.arguments).status == 0
        pages.append(iris.kept.read_bytes())
    assert pages[0] == pages[1]


def test_an_image_models_page_shows_its_layers(folder: Path, published: list[int], call: Call) -> None:
    digits = Searched(folder, "digits", "error")
    ended = call("explain", "digits", *digits.arguments)
    digits.ended.store.close()

    assert (ended.status, ended.out) == (0, f"{digits.kept}\n")
    assert [layer["name"] for layer in data_of(digits.kept)["network"]["layers"]] == ["input", "dense1", "output"]


def test_a_page_that_cant_be_written_is_one_line(iris: Searched, call: Call) -> None:
    ended = call("explain", "iris", "-o", "no/such/folder/mine.html", *iris.arguments)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == "error: no/such/folder/mine.html: No such file or directory."


def test_a_study_without_a_complete_trial_has_nothing_to_show(shelf: Shelf, call: Call) -> None:
    shelf.queued()
    ended = call("explain", "digits", "--json")

    assert ended.status == 2
    assert "No trial is complete yet; the study is queued." in ended.document["error"]["message"]


def test_an_unknown_study_has_an_exit_status_of_its_own(shelf: Shelf, call: Call) -> None:
    assert call("explain", "nothing").status == 4
