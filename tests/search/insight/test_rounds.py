"""Several rounds of one study: what each is given, when they end, and that the test split is looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neurosweep.errors import BadInputError, InterruptedStudyError
from search.insight.findings import Advice, Report, Verdict
from search.insight.rounds import Ended, Rounds, first_round, last_round, rounds_document
from search.study_file import parse_study
from storage.records import NewStudy, StudyRecord, StudyState
from tests.search.insight.made_reports import made_report, pressed
from tests.search.workshop import IRIS, Workshop

PRESSED = (pressed("learning_rate", "upper", 0.3),)


class Tree:
    """The rounds of one study of the irises.

    Attributes:
        report: What is said of each round.
        asked: Labels of the rounds that a report was made of.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.store = workshop.store
        self.report: Callable[[StudyRecord], Report] = lambda study: made_report(study=study.label, borders=PRESSED)
        self.asked: list[str] = []

    def submit(self, rounds: int, **changes: Any) -> StudyRecord:
        text = self.workshop.spec(**changes).to_yaml()
        spec = parse_study(text)
        new = NewStudy(name=spec.name, spec=spec.to_mapping(), text=text, trials=spec.budget.trials)
        return self.store.submit(first_round(new, rounds))

    def work(self, study: StudyRecord) -> Ended:
        def make_report(finished: StudyRecord) -> Report:
            assert finished.state is StudyState.FINISHED
            self.asked.append(finished.label)
            return self.report(finished)

        shop = self.workshop
        return Rounds(shop.store, study, shop.places, shop.shown.append, shop.stop, make_report).work()

    def studies(self) -> list[StudyRecord]:
        return self.store.rounds(self.store.find("iris@1").uid)

    def looks(self) -> list[tuple[str, int | None, str]]:
        """At the test split: of which round, for which trial, and why."""
        return [(s.label, look.trial, look.reason) for s in self.studies() for look in self.store.openings(s.id)]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    workshop = Workshop(tmp_path, monkeypatch)
    yield Tree(workshop)
    workshop.store.close()


def validation(study: StudyRecord) -> float:
    return float((study.result or {})["best"]["validation"])


def test_each_round_is_a_study_in_the_space_that_follows_and_the_best_of_all_is_judged_once(tree: Tree) -> None:
    ended = tree.work(tree.submit(3, budget={"trials": 10}))
    studies = tree.studies()

    assert [study.label for study in studies] == ["iris", "iris@2", "iris@3"]
    assert [len(tree.store.trials(study.id)) for study in studies] == [4, 3, 3]
    assert [study.spec["budget"]["trials"] for study in studies] == [4, 3, 3]
    highs = [study.spec["space"]["learning_rate"]["high"] for study in studies]
    assert highs[0] < highs[1] < highs[2]
    assert [study.spec.get("start_from") for study in studies] == [None, "iris@1", "iris@2"]
    assert "8 of the best 10 are within 5 % of the upper end" in studies[1].text
    assert tree.asked == ["iris", "iris@2"], "of the last one none is needed"

    best = min(studies, key=validation)
    assert (ended.complete, ended.study) == (True, best)
    assert [study.sealed for study in studies] == [study is not best for study in studies]
    winner = (best.result or {})["best"]
    assert winner["test"] is not None
    assert tree.looks() == [(best.label, winner["trial"], "the winner of all rounds")]
    assert tree.workshop.pool.tests == 1
    for study in studies:
        if study is not best:
            told = (study.result or {})["best"]
            assert (told["test"], told["test_interval"], told["model"]) == (None, None, None)
        champion = tree.workshop.places.folder_of(study.uid) / "champion" / "network.pt2"
        assert champion.exists() == (study is best)


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.NOISE_BOUND])
def test_a_verdict_that_leaves_nothing_to_win_ends_the_rounds(tree: Tree, verdict: Verdict) -> None:
    tree.report = lambda study: made_report(verdict, study=study.label)
    ended = tree.work(tree.submit(3, budget={"trials": 6}))
    assert ended.complete
    (study,) = tree.studies()
    assert (study.result or {})["verdict"] == verdict
    assert len(tree.looks()) == 1


def test_a_target_that_is_met_ends_the_rounds(tree: Tree) -> None:
    ended = tree.work(tree.submit(3, budget={"trials": 9, "target": 50.0}))
    assert (ended.complete, len(tree.studies()), tree.asked) == (True, 1, [])


def test_rounds_of_more_epochs_have_fewer_trials(tree: Tree) -> None:
    longer = Advice(key="budget.epochs", change="More epochs.", why="It was still falling.", up=True)
    tree.report = lambda study: made_report(study=study.label, advice=(longer,))
    tree.work(tree.submit(2, budget={"trials": 8, "epochs": 2}))
    budgets = [study.spec["budget"] for study in tree.studies()]
    assert [(budget["trials"], budget["epochs"]) for budget in budgets] == [(4, 2), (2, 4)]


def test_the_minutes_are_shared_and_when_they_are_gone_no_round_follows(tree: Tree) -> None:
    tree.work(tree.submit(2, budget={"trials": 4, "minutes": 10.0}))
    first, second = (study.spec["budget"]["minutes"] for study in tree.studies())
    assert first == 5.0
    assert 9.0 < second < 10.0, "the first round has left most of its share"


def test_where_no_minutes_are_left_the_rounds_end_with_the_best_so_far(tree: Tree) -> None:
    ended = tree.work(tree.submit(3, budget={"trials": 30, "minutes": 1e-6}))
    assert ended.complete
    assert len(tree.studies()) == 1


def test_a_stop_within_a_round_is_gone_on_with_to_the_same_end(tree: Tree) -> None:
    tree.workshop.stop_after(2)
    stopped = tree.work(tree.submit(2, budget={"trials": 8}))
    assert (stopped.complete, stopped.study.state) == (False, StudyState.STOPPED)
    assert last_round(tree.store, stopped.study) == stopped.study
    tree.workshop.go_on()
    ended = tree.work(stopped.study)
    assert ended.complete
    assert [len(tree.store.trials(study.id)) for study in tree.studies()] == [4, 4]
    assert last_round(tree.store, stopped.study) is None
    assert len(tree.looks()) == 1


def test_a_stop_between_two_rounds_is_gone_on_with(tree: Tree) -> None:
    def interrupted(study: StudyRecord) -> Report:
        raise InterruptedStudyError("Told to stop.")

    usual, tree.report = tree.report, interrupted
    stopped = tree.work(tree.submit(2, budget={"trials": 4}))
    assert (stopped.complete, stopped.study.state) == (False, StudyState.FINISHED)
    assert tree.looks() == []
    tree.report = usual
    assert tree.work(stopped.study).complete
    assert len(tree.studies()) == 2


def test_a_stop_while_the_winner_is_judged_is_gone_on_with(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, judge = tree.workshop.pool, tree.workshop.pool.test

    def stopped_instead(*given: Any) -> Any:
        tree.workshop.stop.set()
        raise InterruptedStudyError("Told to stop.")

    monkeypatch.setattr(pool, "test", stopped_instead)
    stopped = tree.work(tree.submit(2, budget={"trials": 4}))
    assert (stopped.complete, stopped.study.sealed) == (False, False)
    monkeypatch.setattr(pool, "test", judge)
    tree.workshop.go_on()
    ended = tree.work(tree.studies()[0])
    assert ended.complete
    assert [len(tree.store.trials(study.id)) for study in tree.studies()] == [2, 2]
    assert [study.sealed for study in tree.studies()].count(False) == 1


def test_a_round_without_a_good_trial_leaves_the_winner_to_the_others(tree: Tree) -> None:
    def spoil(study: StudyRecord) -> Report:
        tree.workshop.pool.change = lambda work, result: tree.workshop.failed(result)
        return made_report(study=study.label, borders=PRESSED)

    tree.report = spoil
    ended = tree.work(tree.submit(3, budget={"trials": 6}))
    assert [study.state for study in tree.studies()] == [StudyState.FINISHED, StudyState.FAILED]
    assert (ended.complete, ended.study.label) == (True, "iris")


def test_a_first_round_without_a_good_trial_is_the_end(tree: Tree) -> None:
    tree.workshop.pool.change = lambda work, result: tree.workshop.failed(result)
    ended = tree.work(tree.submit(3, budget={"trials": 6}))
    assert (ended.complete, ended.study.state) == (False, StudyState.FAILED)


def test_the_document_says_of_each_round_what_it_had_changed(tree: Tree) -> None:
    ended = tree.work(tree.submit(2, budget={"trials": 4}))
    first, second = rounds_document(tree.store, str(ended.study.tree))
    assert (first["round"], first["study"], first["trials"], first["verdict"]) == (1, "iris", 2, "overfitting")
    assert (first["changes"], second["verdict"]) == ([], None)
    (change,) = second["changes"]
    assert change["key"] == "space.learning_rate"
    assert change["from"]["high"] < change["to"]["high"]


def test_more_rounds_than_trials_are_refused() -> None:
    new = NewStudy(name="iris", spec={**IRIS, "budget": {"trials": 2}}, text="", trials=2)
    with pytest.raises(BadInputError, match="3 rounds need at least as many trials"):
        first_round(new, 3)
