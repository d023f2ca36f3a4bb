from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neurosweep.errors import InterruptedStudyError
from search.insight import reporting
from search.insight.findings import Report
from search.places import Places
from storage.records import StudyRecord, StudyState
from tests.search.commands.shelf import Call, Shelf
from tests.search.insight.samples import sample_report


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What reports were asked for; each is a made-up one."""
    calls: list[dict[str, Any]] = []

    def make_report(store: Any, study: StudyRecord, places: Places, **options: Any) -> Report:
        calls.append({"study": study.label, "thorough": options["thorough"]})
        page = places.page_of(study.uid, "report")
        page.parent.mkdir(parents=True)
        page.write_text("<p>the page</p>", encoding="utf-8")
        return sample_report(study=study.label)

    monkeypatch.setattr(reporting, "make_report", make_report)
    yield calls


def test_the_document_is_the_contracts(shelf: Shelf, call: Call, asked: list[dict[str, Any]]) -> None:
    shelf.finished()
    ended = call("report", "digits", "--json")
    assert (ended.status, ended.err) == (0, "")
    document = ended.document
    assert document["verdict"] == "overfitting"
    assert document["levels"]["chance"] == [0.9, 0.86, 0.93]
    assert document["levels"]["human"] == [0.01, 0.01, 0.01]
    assert document["levels"]["target"] is None
    assert set(document["levels"]) == {"chance", "simple", "human", "target", "train", "validation", "test"}
    assert {"key", "change", "why"} <= set(document["advice"][0])
    assert document["ties"] == [
        contender.trial for contender in (sample_report().seeds or pytest.fail()).contenders[:3]
    ]
    assert document["warnings"] == list(sample_report().warnings)
    assert Path(document["page"]).read_text(encoding="utf-8") == "<p>the page</p>"


def test_people_read_the_verdict_first_then_levels_and_advice(
    shelf: Shelf, call: Call, asked: list[dict[str, Any]]
) -> None:
    shelf.finished()
    out = call("report", "digits").out
    assert out.startswith("digits: It memorises (overfitting)\n")
    order = ["wrong about once in 50", "a simple model", "What to do next", "1. Get more rows", "The page:"]
    places = [out.index(words) for words in order]
    assert places == sorted(places)
    assert max(map(len, out.splitlines()[:-2])) <= 80


def test_the_page_goes_where_it_is_asked_for_as_well(
    shelf: Shelf, call: Call, folder: Path, asked: list[dict[str, Any]]
) -> None:
    shelf.finished()
    document = call("report", "digits", "--thorough", "-o", "mine.html", "--json").document
    assert document["page"] == str(folder / "mine.html")
    assert (folder / "mine.html").read_text(encoding="utf-8") == "<p>the page</p>"
    assert asked == [{"study": "digits", "thorough": True}]


def test_control_c_ends_it_with_130(shelf: Shelf, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*places: Any, **options: Any) -> Report:
        raise InterruptedStudyError("Told to stop.")

    monkeypatch.setattr(reporting, "make_report", interrupted)
    shelf.finished()
    ended = call("report", "digits")
    assert (ended.status, ended.out) == (130, "")
    assert "are kept for the next report" in ended.err


def test_a_study_without_a_complete_trial_has_no_report(shelf: Shelf, call: Call) -> None:
    shelf.queued()
    ended = call("report", "digits")
    assert (ended.status, ended.out) == (2, "")
    assert "No trial is complete yet; the study is queued" in ended.err
    shelf.ended(StudyState.FAILED, error="3 of 3 trials failed: loss is nan")
    ended = call("report", "digits", "--json")
    assert ended.status == 1
    assert "loss is nan" in json.loads(ended.out)["error"]["message"]
    assert call("report", "digts").status == 4
