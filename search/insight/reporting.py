"""The report of a study, from its database and its data: extra runs where they are missing, levels, verdict, page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from search.engine import OnProgress, Workbench, workbench
from search.insight.diagnose import diagnose
from search.insight.extra_runs import make_extra_runs
from search.insight.findings import Report
from search.insight.page_file import write_page
from search.insight.report_page import report_page
from search.insight.winner import load_winner, make_trainer, outputs_of, winning_trial
from search.places import Places
from search.progress import Progress
from search.stop import Stop
from storage.records import StudyRecord, StudyState, TrialRecord, TrialState
from storage.store import Store
from trainer.work import Metric, TestResult

PAGE = "report"

COMPARED = "the simple models, for comparison"
"""Why a report looks at the test split, which is open by then."""


def make_report(
    store: Store, study: StudyRecord, places: Places, *, thorough: bool, on_progress: OnProgress, stop: Stop
) -> Report:
    """What a study is worth, why, and what to try next; of one that has not ended, as far as it has come.

    Its page is written into the study's folder (`Places.page_of`), and MLflow is told of all that is new. The test
    split stays shut until the study has opened it for its winner. Extra runs that are known from an earlier report are
    not made again; none are made for a study that has not ended.

    Args:
        thorough: Make all extra runs, whatever time they take.
        stop: Breaks the work off, in the main thread, which must be the caller's.

    Raises:
        BadInputError: No trial is complete yet, or the data are gone or have changed.
        StudyFailedError: The study ended without one complete trial.
        InterruptedStudyError: Told to stop; extra runs that were done are kept.
    """
    trials = store.trials(study.id)
    winner = winning_trial(study, trials)
    tell = _teller(study, trials, on_progress)
    with workbench(store, study, places, on_progress, stop) as bench:
        extra_runs = store.extra_runs(study.id)
        not_run: tuple[str, ...] = ()
        if study.state in _AT_REST:
            tell("extra runs")
            extra_runs, not_run = make_extra_runs(store, study, trials, bench, winner=winner.number, thorough=thorough)
        epochs = store.epochs(study.id)
        with stop.breaks():
            tell("measuring the winner")
            train, validation, test = _measured(store, study, places, bench, winner)
            tell("looking for what holds it back")
            report = diagnose(
                study=study,
                spec=bench.spec,
                trials=trials,
                winner=winner,
                epochs=epochs,
                dataset=bench.dataset,
                train=train,
                validation=validation,
                test=test,
                extra_runs=extra_runs,
                openings=store.openings(study.id),
                not_run=not_run,
            )
            write_page(places, study, PAGE, report_page(report, study, trials, epochs))
        if study.state is StudyState.FINISHED:
            store.record_verdict(study.id, report.diagnosis.verdict)
        store.publish_page(study.id, PAGE)
    return report


_AT_REST = (StudyState.FINISHED, StudyState.STOPPED, StudyState.FAILED, StudyState.CANCELLED)


def is_open(study: StudyRecord) -> bool:
    """Whether the study has judged its winner on the test split."""
    return ((study.result or {}).get("best") or {}).get("test") is not None


def _measured(
    store: Store, study: StudyRecord, places: Places, bench: Workbench, winner: TrialRecord
) -> tuple[TestResult, TestResult, TestResult | None]:
    """The winner on train, validation and test; the last is None while that split is shut."""
    spec, dataset = bench.spec, bench.dataset
    metric = Metric(spec.metric or Metric.ERROR)
    trainer = make_trainer(dataset)
    network = load_winner(places, study, winner, spec, dataset, trainer=trainer)
    splits = [dataset.train, dataset.validation]
    if is_open(study):
        store.record_opening(study.id, winner.number, COMPARED)
        splits.append(dataset.test)
    train, validation, *test = (outputs_of(network, dataset, split, metric, trainer=trainer) for split in splits)
    return train, validation, test[0] if test else None


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
