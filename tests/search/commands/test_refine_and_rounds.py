"""refine, and run and resume with several rounds, over a stand-in for the engine and for the report."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from neurosweep.errors import InterruptedStudyError
from search.commands import refining, working
from search.insight import reporting, rounds
from search.insight.findings import Advice, Report, Verdict
from search.places import Places
from search.study_file import read_study
from storage.records import StudyRecord, StudyState
from storage.store import Store
from tests.search.commands.shelf import STUDY_TEXT, Call, Shelf, result
from tests.search.insight.made_reports import made_report, pressed

MISSING = "error: start_from: There is no study 'digitz'"
ROWS = Advice(key="data", change="Get more rows.", why="The curve still falls.")


def says(verdict: Verdict = Verdict.UNDERFITTING) -> Any:
    """A report that says so of whatever study."""

    def make_report(store: Store, study: StudyRecord, places: Places, **others: Any) -> Report:
        border = pressed("learning_rate", "upper", 0.3)
        return made_report(verdict, study=study.label, borders=(border,), advice=(ROWS,))

    return make_report


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setattr(reporting, "make_report", says())
    return reporting


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the studies that a stand-in for the engine has worked on; each ends at once, without a trial."""
    worked: list[str] = []

    def run_study(store: Store, study_id: int, places: Places, on_progress: Any, stop: Any) -> StudyRecord:
        claim = store.claim("stand-in", study_id=study_id)
        assert claim is not None
        worked.append(claim.study.label)
        told = result(claim.study, places.tracking)
        if claim.study.sealed:
            told["best"] |= {"test": None, "test_interval": None, "model": None}
        state = StudyState.STOPPED if stop.is_set() else StudyState.FINISHED
        store.finish(claim, state, result=told if state is StudyState.FINISHED else None)
        return store.study(study_id)

    monkeypatch.setattr(rounds, "run_study", run_study)
    return worked


@pytest.fixture
def study_file(folder: Path) -> str:
    (folder / "study.yaml").write_text(STUDY_TEXT)
    return "study.yaml"


def test_refine_writes_the_next_study_file_with_its_reasons(shelf: Shelf, call: Call, folder: Path) -> None:
    shelf.finished()
    ended = call("refine", "digits", "--json")
    assert ended.status == 0
    document = ended.document
    assert (document["file"], document["verdict"]) == ("digits-2.yaml", "underfitting")
    assert [change["key"] for change in document["changes"]] == ["space.learning_rate", "start_from"]
    assert document["changes"][0] == {
        "key": "space.learning_rate",
        "from": {"low": 0.0001, "high": 0.3, "log": True},
        "to": {"low": 0.0001, "high": 3.0, "log": True},
        "why": "8 of the best 10 are within 5 % of the upper end, 0.3",
    }
    assert document["left"] == [{"key": "data", "change": "Get more rows.", "why": "The curve still falls."}]
    spec = read_study(folder / "digits-2.yaml")
    assert (spec.name, spec.start_from) == ("digits", "digits@1")
    assert "8 of the best 10" in (folder / "digits-2.yaml").read_text()


def test_refine_says_in_words_what_it_has_changed_and_what_comes_next(shelf: Shelf, call: Call) -> None:
    shelf.finished()
    out = call("refine", "digits", "-o", "next.yaml").out
    assert "space.learning_rate: {low: 0.0001, high: 0.3, log: true} -> {low: 0.0001, high: 3.0, log: true}" in out
    assert "Get more rows. The curve still falls." in out
    assert out.splitlines()[-1] == "Wrote next.yaml. Next: neurosweep validate next.yaml, then neurosweep run next.yaml"


def test_refine_does_not_write_over_a_file_without_force(shelf: Shelf, call: Call, folder: Path) -> None:
    shelf.finished()
    (folder / "mine.yaml").write_text("mine")
    ended = call("refine", "digits", "-o", "mine.yaml")
    assert (ended.status, (folder / "mine.yaml").read_text()) == (2, "mine")
    assert call("refine", "digits", "-o", "mine.yaml", "--force").status == 0
    assert (folder / "mine.yaml").read_text() != "mine"
    assert call("refine", "nobody").status == 4


def test_a_study_file_that_starts_from_no_study_is_refused_before_anything_runs(
    study_file: str, call: Call, folder: Path
) -> None:
    (folder / study_file).write_text(STUDY_TEXT + "start_from: digitz\n")
    for command in ("validate", "submit", "run"):
        ended = call(command, study_file)
        assert (ended.status, ended.err.strip()) == (4, f"{MISSING}: none has been submitted yet.")


def test_run_with_rounds_ends_with_one_document_of_the_winner_and_of_all_rounds(
    engine: list[str], study_file: str, call: Call
) -> None:
    ended = call("run", study_file, "--rounds", "3", "--json")
    assert ended.status == 0
    document = ended.document
    assert engine == ["digits", "digits@2", "digits@3", "digits"], "of equal rounds the first is the winner's"
    assert (document["study"], document["state"], document["best"]["test"]) == ("digits", "finished", 0.017)
    assert [(each["round"], each["study"], each["verdict"]) for each in document["rounds"]] == [
        (1, "digits", "underfitting"),
        (2, "digits@2", "underfitting"),
        (3, "digits@3", None),
    ]
    out = call("best", "digits@2").out
    assert "The test split has not been read" in out
    assert call("predict", "digits@2", "rows.csv").status == 2


def test_rounds_are_shown_above_the_result(
    engine: list[str], study_file: str, call: Call, reports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "make_report", says(Verdict.DONE))
    lines = call("run", study_file, "--rounds", "3").out.splitlines()
    assert "verdict" in lines[0]
    (shown,) = [line.split() for line in lines if line.split()[:2] == ["1", "digits"]]
    assert shown[3:] == ["0.0120", "done", "-"]
    assert any(line.startswith("digits finished") for line in lines)


@pytest.mark.parametrize("moment", ["within a round", "between two rounds"])
def test_rounds_that_were_interrupted_say_how_to_go_on_and_resume_does(
    engine: list[str], study_file: str, call: Call, reports: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def stopped(store: Store, study: StudyRecord, places: Places, *, stop: Any, **others: Any) -> Report:
        stop.set()
        if moment == "between two rounds":
            raise InterruptedStudyError("Told to stop.")
        found: Report = says()(store, study, places)
        return found

    monkeypatch.setattr(reports, "make_report", stopped)
    ended = call("run", study_file, "--rounds", "2", "--json")
    label = "digits" if moment == "between two rounds" else "digits@2"
    assert (ended.status, ended.document["study"]) == (130, label)
    assert ended.err.splitlines()[-1] == f"go on with: neurosweep resume {label}"
    monkeypatch.setattr(reports, "make_report", says())
    ended = call("resume", label, "--json")
    assert (ended.status, ended.document["state"], len(ended.document["rounds"])) == (0, "finished", 2)
    assert ended.document["best"]["test"] is not None


def test_help_of_both_has_an_example() -> None:
    for command in (refining.refine, working.run):
        assert "Example:" in (command.help or "")
