"""The JSON that commands print, made from records. A study's documents all have the same keys; the unknown is null."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from neurosweep.errors import NeurosweepError, StudyFailedError
from search.leaders import SHOWN, leaders, trial_figures
from search.progress import Progress, WorkerActivity
from storage.records import Behind, MlflowRun, StudyRecord, StudyState, StudySummary, TrialRecord, TrialState
from storage.secrecy import public_address

Document = dict[str, Any]

GOING_ON = (StudyState.QUEUED, StudyState.RUNNING)

_BEST_KEYS = (
    *("trial", "params", "train", "validation", "test", "test_interval"),
    *("epochs", "best_epoch", "weights", "model"),
)
_PACE = 20
"""How many of the last trials tell how long the next ones will take."""


def study_document(
    summary: StudySummary,
    trials: Sequence[TrialRecord] | None = None,
    run: MlflowRun | None = None,
    tracking: str | None = None,
    unpublished: int | None = None,
) -> Document:
    """One study in the contract's words.

    Args:
        summary: The study and how far it is.
        trials: Its trials, where the caller has read them: they tell the best one before the study has a result.
        run: Its parent run in MLflow, where it is known.
        tracking: MLflow's address; its password is left out.
        unpublished: How many of its facts MLflow has not been told yet.
    """
    study, result = summary.study, summary.study.result or {}
    leading = leaders(trials or ())
    mlflow = result.get("mlflow") or (
        {"tracking_uri": tracking, "experiment_id": run.experiment_id, "run_id": run.run_id} if run else None
    )
    if mlflow and mlflow.get("tracking_uri"):
        mlflow = {**mlflow, "tracking_uri": public_address(mlflow["tracking_uri"])}
    return {
        "study": study.label,
        "state": study.state.value,
        "metric": result.get("metric") or study.spec.get("metric"),
        "trials": _counts(summary),
        "best": result.get("best") or _best(leading, summary.best),
        "splits": result.get("splits"),
        "seconds": result.get("seconds") or _seconds(study),
        "mlflow": mlflow,
        "unpublished": unpublished,
        "worth": result.get("worth") or [],
        "chance": result.get("chance"),
        "stopped_for": result.get("stopped_for"),
        "ties": result.get("ties") or [],
        "leader": result.get("leader") or [trial_figures(trial) for trial in leading[:SHOWN]],
        "created_at": _moment(study.created_at),
        "started_at": _moment(study.started_at),
        "ended_at": _moment(study.ended_at),
        "error": _study_error(study),
        "notice": study.notice,
    }


def trial_document(trial: TrialRecord) -> Document:
    """One entry of ``trial_list``."""
    return {
        **trial_figures(trial),
        "state": trial.state.value,
        "seconds": trial.seconds,
        "error": trial.error,
        "worker": trial.worker,
        "would_stop": trial.would_stop,
    }


def mlflow_document(document: Document, behind: Behind) -> Document:
    """Where a study is in MLflow, and how far MLflow is behind."""
    where = document["mlflow"] or {"tracking_uri": None, "experiment_id": None, "run_id": None}
    reason = behind.oldest_reason or behind.set_aside_reason
    return {**where, "pending": behind.pending, "set_aside": behind.set_aside, "reason": reason}


def error_document(error: NeurosweepError) -> Document:
    return {"error": {"kind": error.kind, "message": error.message, "where": error.where}}


def stored_progress(summary: StudySummary, trials: Sequence[TrialRecord], now: datetime) -> Progress:
    """How far a study is, told from the database alone: what `watch` shows."""
    study = summary.study
    counts = summary.counts
    best = next(iter(leaders(trials)), None)
    epochs = study.spec.get("budget", {}).get("epochs", 0)
    return Progress(
        label=study.label,
        metric=str(study.spec.get("metric") or "metric"),
        stage="training"
        if study.state is StudyState.RUNNING and trials
        else _STAGES.get(study.state, study.state.value),
        total=study.trials,
        complete=counts.get(TrialState.COMPLETE, 0),
        pruned=counts.get(TrialState.PRUNED, 0),
        failed=counts.get(TrialState.FAILED, 0),
        running=counts.get(TrialState.RUNNING, 0),
        best_trial=best.number if best else None,
        best_value=best.validation if best else summary.best,
        best_params=best.params if best else None,
        workers=tuple(
            WorkerActivity(name=trial.worker or "-", trial=trial.number, epoch=trial.epochs, epochs=epochs)
            for trial in trials
            if trial.state is TrialState.RUNNING
        ),
        elapsed=((study.ended_at or now) - (study.started_at or now)).total_seconds(),
        left=_seconds_left(study, trials, now),
    )


_STAGES = {StudyState.QUEUED: "waiting in the queue", StudyState.RUNNING: "starting"}


def _counts(summary: StudySummary) -> dict[str, int]:
    return {"total": summary.study.trials, **{state.value: summary.counts.get(state, 0) for state in TrialState}}


def _best(leading: Sequence[TrialRecord], best: float | None) -> Document | None:
    """The best trial so far: not tested yet, and no model saved."""
    if leading:
        known = {**trial_figures(leading[0]), "weights": leading[0].weights}
    elif best is not None:
        known = {"validation": best}
    else:
        return None
    return {key: known.get(key) for key in _BEST_KEYS}


def _study_error(study: StudyRecord) -> Document | None:
    if study.error is None or study.state in GOING_ON:  # a study that was put back still has the error of last time
        return None
    document: Document = error_document(StudyFailedError(study.error, study.label))["error"]
    return document


def _seconds(study: StudyRecord) -> float | None:
    if study.started_at is None:
        return None
    if study.worked:
        return study.worked
    return ((study.ended_at or datetime.now(UTC)) - study.started_at).total_seconds()


def _seconds_left(study: StudyRecord, trials: Sequence[TrialRecord], now: datetime) -> float | None:
    ended = sorted(trial.ended_at for trial in trials if trial.ended_at is not None)
    if study.state is not StudyState.RUNNING or not ended:
        return None
    recent = ended[-_PACE:]
    first = min(trial.started_at for trial in trials) if len(recent) == len(ended) else recent[0]
    pace = (now - first).total_seconds() / len(recent)
    return pace * max(0, study.trials - len(ended))


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
