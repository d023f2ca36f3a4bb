"""Whether stopping was right and searching on was worth it, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from search.insight.stopping import last_half, stopping_findings
from search.spec import StudySpec
from storage.records import TrialRecord, TrialState
from tests.search.insight.planted import study_record
from tests.search.insight.trials import trial


def spec_of(**budget: Any) -> StudySpec:
    return StudySpec.from_mapping({"name": "made-up", "data": {"source": "iris"}, "budget": {"epochs": 10, **budget}})


def pruned(number: int, epochs: int) -> TrialRecord:
    return trial(number, validation=0.5, state=TrialState.PRUNED, epochs=epochs, seconds=0.5 * epochs)


def test_audited_trials_that_beat_every_other_are_counted_with_wilsons_interval() -> None:
    trials = [
        trial(0, validation=0.20),
        trial(1, validation=0.10),
        trial(2, validation=0.05, would_stop=3),
        *(trial(number, validation=0.3, would_stop=1) for number in range(3, 12)),
        pruned(12, 2),
    ]

    found = stopping_findings(study_record(spec_of(), 13), spec_of(), trials)

    assert (found.stopped, found.audited, found.beaten) == (1, 10, 1)
    theirs = stats.binomtest(1, 10).proportion_ci(method="wilson")
    assert found.share is not None
    assert (found.share.value, found.share.low, found.share.high) == pytest.approx((0.1, theirs.low, theirs.high))


def test_without_an_audit_there_is_no_share() -> None:
    assert stopping_findings(study_record(spec_of(), 1), spec_of(), [trial(0, validation=0.1)]).share is None


def test_what_stopping_saved_is_the_time_of_the_epochs_that_were_left() -> None:
    found = stopping_findings(study_record(spec_of(), 3), spec_of(), [pruned(0, 2), pruned(1, 10), pruned(2, 0)])

    assert found.saved_seconds == pytest.approx(8 * 0.5)


@pytest.mark.parametrize(
    ("values", "gained"),
    [((0.5, 0.4, 0.3, 0.2), 0.2), ((0.1, 0.4, 0.3, 0.2), 0.0), ((0.1,), 0.0), ((), 0.0), ((None, None, 0.3), 0.0)],
)
def test_the_last_half_is_worth_what_it_bettered(values: tuple[float | None, ...], gained: float) -> None:
    trials = [trial(number, validation=value) for number, value in enumerate(values)]

    assert last_half(trials) == pytest.approx(gained)


def test_why_a_study_ended_early_is_told() -> None:
    trials = [trial(number, validation=0.1) for number in range(5)]

    def told(spec: StudySpec, **changes: Any) -> str | None:
        return stopping_findings(study_record(spec, 20, **changes), spec, trials).stopped_for

    assert told(spec_of(target=0.15)) == "the target was reached"
    assert told(spec_of(minutes=1), worked=61.0) == "its minutes were spent"
    assert told(spec_of(), result={"stopped_for": "no gain was expected"}) == "no gain was expected"
    assert told(spec_of()) is None
    assert stopping_findings(study_record(spec_of(), 5), spec_of(target=0.15), trials).stopped_for is None
