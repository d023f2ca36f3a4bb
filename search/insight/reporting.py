"""The report of a study, from its database and its data: extra runs where they are missing, levels, verdict, page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from search.engine import OnProgress
from search.insight.diagnose import diagnose
from search.insight.findings import Report
from search.insight.report_page import report_page
from search.insight.winner import load_winner, make_trainer, outputs_of, studied_data, winning_trial
from search.places import Places
from search.progress import Progress
from search.stop import Stop
from storage.records import StudyRecord, StudyState, TrialRecord, TrialState
from storage.store import Store
from trainer.work import Metric

PAGE = "report"

COMPARED = "the simple models, for comparison"
"""Why a report looks at the test split, which is open by then."""


def make_report(
    store: Store, study: StudyRecord, places: Places, *, thorough: bool, on_progress: OnProgress, stop: Stop
) -> Report:
    """What a study is worth, why, and what to try next; of one that has not ended, as far as it has come.

    The test split stays shut until the study has opened it for its winner. Extra runs that are known from an earlier
    report are not made again.

    Args:
        thorough: Make all extra runs, whatever time they take.
        stop: Breaks the work off; must be asked for in the main thread, which must be the caller's.

    Raises:
        BadInputError: No trial is complete yet, or the data are gone or have changed.
        StudyFailedError: The study ended without one complete trial.
        InterruptedStudyError: Told to stop; extra runs that were done are kept.
    """
    trials = store.trials(study.id)
    trial = winning_trial(study, trials)
    tell = _teller(study, trials, on_progress)
    tell("reading the data")
    with stop.breaks():
        spec, dataset = studied_data(study)
    not_run: tuple[str, ...] = ()
    tell("measuring the winner")
    with stop.breaks():
        metric = Metric(spec.metric or Metric.ERROR)
        trainer = make_trainer(dataset)
        winner = load_winner(places, study, trial, spec, dataset, trainer=trainer)
        train, validation = (
            outputs_of(winner, dataset, split, metric, trainer=trainer) for split in (dataset.train, dataset.validation)
        )
        test = None
        if is_open(study):
            openings = store.openings(study.id)
            if all(opening.reason != COMPARED for opening in openings):
                store.record_opening(study.id, trial.number, COMPARED)
            test = outputs_of(winner, dataset, dataset.test, metric, trainer=trainer)
        tell("looking for what holds it back")
        report = diagnose(
            study=study,
            spec=spec,
            trials=trials,
            epochs=store.epochs(study.id),
            dataset=dataset,
            train=train,
            validation=validation,
            test=test,
            extra_runs=store.extra_runs(study.id),
            openings=store.openings(study.id),
            not_run=not_run,
        )
    if study.state is StudyState.FINISHED:
        store.record_verdict(study.id, report.diagnosis.verdict)
    return report


def is_open(study: StudyRecord) -> bool:
    """Whether the study has judged its winner on the test split."""
    return ((study.result or {}).get("best") or {}).get("test") is not None


def write_page(store: Store, study: StudyRecord, places: Places, report: Report) -> Path:
    """Writes the page into the study's folder, and has MLflow told of it with the next that it is told.

    Returns:
        The file.
    """
    file = page_of(study, places)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(report_page(report, study, store.trials(study.id), store.epochs(study.id)), encoding="utf-8")
    store.publish_page(study.id, PAGE)
    return file


def page_of(study: StudyRecord, places: Places) -> Path:
    """Where a study's page is, once it has been written."""
    return places.folder_of(study.uid) / "pages" / f"{PAGE}.html"


def _teller(study: StudyRecord, trials: Sequence[TrialRecord], on_progress: OnProgress) -> Callable[[str], None]:
    counts = Counter(trial.state for trial in trials)
    began = time.monotonic()

    def tell(stage: str) -> None:
        on_progress(
            Progress(
                label=study.label,
                metric=str(study.spec.get("metric") or ""),
                stage=stage,
                total=study.trials,
                complete=counts[TrialState.COMPLETE],
                pruned=counts[TrialState.PRUNED],
                failed=counts[TrialState.FAILED],
                elapsed=time.monotonic() - began,
            )
        )

    return tell
