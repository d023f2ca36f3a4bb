"""A report from a study that was really searched, with its extra runs, its page and its looks at the test split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neurosweep.errors import BadInputError, InterruptedStudyError
from search.engine import Workbench
from search.insight import reporting
from search.insight.findings import Report
from search.insight.reporting import COMPARED, make_report
from search.insight.winner import studied_data
from search.leaders import leaders
from search.places import Places
from search.progress import Progress
from search.stop import Stop
from storage.records import StudyRecord, StudyState
from tests.search.dispatched import Study
from tests.search.in_process_pool import InProcessPool
from trainer.data.dataset import DataRequest
from trainer.data.load import load


class Bench:
    """As the engine's, with a pool of this process."""

    def __init__(self, study: StudyRecord, pool: InProcessPool, on_progress: Any) -> None:
        self.spec, self.dataset = studied_data(study)
        self.pool = pool
        self.on_progress = on_progress


class Ended:
    """A finished study of iris."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked = Study(folder, load(DataRequest(source="iris")), budget={"trials": 4, "epochs": 3})
        self.store = self.worked.store
        self.pool = InProcessPool(workers=2)
        self.claim = self.worked.claim()
        self.store.started(self.claim, self.worked.data.split_hash, self.worked.spec.to_mapping())
        self.worked.work(self.pool, claim=self.claim)
        self.pool.submitted.clear()
        self.places = Places(home=folder / "home", database="", tracking="", ray=None)
        self.told: list[Progress] = []
        self.best = leaders(self.worked.trials())[0].number

        @contextlib.contextmanager
        def workbench(store: Any, study: StudyRecord, places: Any, on_progress: Any, stop: Any) -> Iterator[Any]:
            yield Bench(study, self.pool, on_progress)

        monkeypatch.setattr(reporting, "workbench", workbench)

    def finish(self, test: float | None) -> None:
        best = {"trial": self.best, "test": test, "test_interval": [0.1, 0.5]}
        self.store.finish(self.claim, StudyState.FINISHED, result={"best": best, "seconds": 500.0})

    def report(self, thorough: bool = False, stop: Stop | None = None) -> Report:
        return make_report(
            self.store,
            self.study,
            self.places,
            thorough=thorough,
            on_progress=self.told.append,
            stop=stop or Stop(),
        )

    @property
    def study(self) -> StudyRecord:
        return self.store.study(self.worked.id)


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ended]:
    ended = Ended(tmp_path, monkeypatch)
    yield ended
    ended.store.close()


def test_it_has_every_part_and_leaves_page_verdict_and_one_look_behind(ended: Ended) -> None:
    ended.finish(test=0.3)
    facts = ended.store.pending_facts(ended.study.id)
    report = ended.report()
    assert report.trial == ended.best
    assert report.levels.test is not None and report.levels.split == "test"
    assert set(report.levels.simple_models) >= {"logistic regression", "random forest"}
    assert report.seeds is not None and len(report.seeds.contenders) == 4
    assert report.data_curve is not None and report.data_curve.rows[-1] == len(ended.worked.data.train)
    page = ended.places.page_of(ended.study.uid, "report").read_text(encoding="utf-8")
    assert report.diagnosis.reasons[0].split(";")[0] in page
    assert [path.name for path in ended.places.page_of(ended.study.uid, "report").parent.iterdir()] == ["report.html"]
    assert (ended.study.result or {})["verdict"] == report.diagnosis.verdict
    assert [(look.trial, look.reason) for look in report.openings] == [(ended.best, COMPARED)]
    assert ended.store.pending_facts(ended.study.id) > facts + len(report.extra_runs)  # the runs, and the page

    trained = len(ended.pool.submitted)
    again = ended.report()
    assert len(ended.pool.submitted) == trained > 0  # nothing is trained twice
    assert len(again.openings) == 1  # nor is the test split opened twice for the same
    assert again.diagnosis == report.diagnosis
    assert again.levels == report.levels


def test_a_sealed_test_split_stays_shut(ended: Ended) -> None:
    ended.finish(test=None)
    report = ended.report()
    assert report.levels.test is None and report.levels.split == "validation"
    assert ended.store.openings(ended.study.id) == []
    assert "Still sealed" in ended.places.page_of(ended.study.uid, "report").read_text(encoding="utf-8")


def test_a_running_study_is_told_as_far_as_it_has_come_and_nothing_is_trained_beside_it(ended: Ended) -> None:
    report = ended.report()
    assert report.state == "running"
    assert ended.pool.submitted == []
    assert report.extra_runs == ()
    assert "still running" in ended.places.page_of(ended.study.uid, "report").read_text(encoding="utf-8")


def test_a_stop_breaks_it_off_and_leaves_no_page(ended: Ended) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(InterruptedStudyError):
        ended.report(stop=stop)
    assert not ended.places.page_of(ended.study.uid, "report").exists()


def test_a_study_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    study = Study(tmp_path, load(DataRequest(source="iris")))
    places = Places(home=tmp_path, database="", tracking="", ray=None)
    with pytest.raises(BadInputError, match="No trial is complete yet"):
        make_report(
            study.store,
            study.store.study(study.id),
            places,
            thorough=False,
            on_progress=study.shown.append,
            stop=Stop(),
        )
    study.store.close()


def test_the_stand_in_for_the_workbench_has_what_the_real_one_has() -> None:
    assert {"spec", "dataset", "on_progress"} <= set(Workbench.__dataclass_fields__) and hasattr(Workbench, "pool")
