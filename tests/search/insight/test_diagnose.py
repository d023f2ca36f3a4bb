"""The whole diagnosis of one small study that is trained here."""

from __future__ import annotations

from datetime import timedelta

import pytest

from search.insight.findings import Opening, Report
from tests.search.insight.planted import (
    START,
    Studied,
    clouds,
    diagnosed,
    extra_runs,
    spec_of,
    studied,
    table,
)


@pytest.fixture(scope="module")
def study() -> Studied:
    inputs, targets = clouds(1600, classes=3, features=5, apart=4, seed=0)
    data = table(inputs, targets, (800, 400, 400), classes=3)
    return studied(data, spec_of(data, {"dropout": {"low": 0.0, "high": 0.3}}, epochs=6, trials=6, seed=0))


@pytest.fixture(scope="module")
def report(study: Studied) -> Report:
    return diagnosed(study, extra_runs(study, seeds=2))


def test_the_report_has_the_winner_its_levels_and_its_counts(study: Studied, report: Report) -> None:
    winner = study.winner

    assert (report.trial, report.settings, report.weights) == (winner.number, winner.params, winner.weights)
    assert report.levels.validation.value == pytest.approx(winner.validation)
    assert report.levels.train.value == pytest.approx(winner.train)
    assert report.levels.split == "test"
    assert report.levels.simple == min(report.levels.simple_models.values(), key=lambda each: each.value)
    assert report.trials == {"total": 6, "complete": 6, "pruned": 0, "failed": 0}
    assert report.splits == {"train": 800, "validation": 400, "test": 400}
    assert (report.seconds, report.extra_seconds) == (60.0, sum(run.seconds for run in report.extra_runs))
    assert report.seeds is not None and report.data_curve is not None
    assert report.data_curve.rows == (200, 400, 800)


def test_the_same_study_gets_the_same_report(study: Studied, report: Report) -> None:
    assert diagnosed(study, report.extra_runs) == report


def test_while_the_test_split_is_shut_the_validation_split_speaks(study: Studied) -> None:
    shut = diagnosed(study, (), test=None, openings=())

    assert (shut.levels.test, shut.levels.split, shut.openings) == (None, "validation", ())
    assert not any("test" in reason for reason in shut.diagnosis.reasons[1:])


def test_a_study_that_went_on_after_the_test_split_was_opened_says_what_that_does(study: Studied) -> None:
    early = START + timedelta(seconds=2.5)
    other = (study.winner.number + 1) % 6

    for_another = diagnosed(study, (), openings=(Opening(at=early, trial=other, reason="the winner"),))
    for_itself = diagnosed(study, (), openings=(Opening(at=early, trial=study.winner.number, reason="the winner"),))
    at_the_end = diagnosed(study, ())

    assert any(f"opened before, for trial {other}" in warning for warning in for_another.warnings)
    assert any("its figure is as good as it was" in warning for warning in for_itself.warnings)
    assert not any("opened" in warning for warning in at_the_end.warnings)
