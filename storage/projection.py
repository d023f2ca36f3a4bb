"""What MLflow shows of a study and of a trial, worked out from the records. Pure, and without mlflow.

Everything here is a function of what the database holds, frozen time stamps included: publishing the same fact twice
sends the same bytes, and the same bytes again change nothing in MLflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.facts import extra_run_key, study_key, trial_key
from storage.records import ENDED, EpochRow, ExtraRun, Probe, StudyRecord, StudyState, TrialRecord, TrialState

KEY = "neurosweep.key"
"""The tag by which a run, a model or a model version is found again. Its values are ``[a-z0-9-]`` only."""

STUDY_UID = "neurosweep.study_id"

PARAM_LENGTH = 6000  # MLflow's limit
TAG_LENGTH = 5000  # MLflow's limit is 8,000, an older server's 5,000


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric; `at` is in milliseconds since 1970, `step` the epoch."""

    name: str
    value: float
    at: int
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """All that one MLflow run holds, apart from artifacts.

    Attributes:
        status: MLflow's word: RUNNING, FINISHED, FAILED or KILLED.
        started: Milliseconds since 1970.
        ended: The same; None while it runs.
    """

    name: str
    tags: dict[str, str]
    params: dict[str, str]
    points: tuple[Point, ...]
    status: str
    started: int
    ended: int | None


OVER = frozenset({StudyState.STOPPED, *ENDED})
"""States of a study that nobody works on or will; a queued one may have been resumed."""

STUDY_STATUS = {
    StudyState.QUEUED: "RUNNING",
    StudyState.RUNNING: "RUNNING",
    StudyState.STOPPED: "KILLED",
    StudyState.FINISHED: "FINISHED",
    StudyState.FAILED: "FAILED",
    StudyState.CANCELLED: "KILLED",
}
TRIAL_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    # Pruning is what the pruner is for: FINISHED, as MLflow marks KILLED like a failure. The tag tells them apart.
    TrialState.PRUNED: "FINISHED",
    TrialState.FAILED: "FAILED",
}


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970 of an aware time."""
    return round(at.timestamp() * 1000)


REASONS = {
    Probe.ROWS: "whether more rows would help",
    Probe.NEURONS: "whether a larger network would help",
    Probe.EPOCHS: "whether more epochs would help",
    Probe.SEED: "what another seed makes of it",
}
"""Why an extra run was made."""


def study_content(study: StudyRecord, first_round: str | None = None) -> RunContent:
    """The parent run. Its params come from the study file alone, because MLflow refuses to change one.

    Args:
        first_round: Run id of the first round's parent run, for a later round.
    """
    spec, search, budget = study.spec, study.spec.get("search", {}), study.spec.get("budget", {})
    wanted = {
        "source": spec.get("data", {}).get("source"),
        "target": spec.get("data", {}).get("target"),
        "task": spec.get("task"),
        "metric": spec.get("metric"),
        "model": spec.get("model"),
        "sampler": search.get("sampler"),
        "pruner": search.get("pruner"),
        "trials": budget.get("trials"),
        "epochs": budget.get("epochs"),
        "minutes": budget.get("minutes"),
        "target_value": budget.get("target"),
        "seed": spec.get("seed"),
    }
    tags = {
        KEY: study_key(study),
        STUDY_UID: study.uid,
        "neurosweep.study": study.label,
        "neurosweep.kind": "study",
        "neurosweep.state": study.state.value,
        "neurosweep.seed": str(spec.get("seed", 0)),
        "neurosweep.split_hash": study.split_hash,
        "neurosweep.error": study.error,
        "neurosweep.round": study.round,
        "neurosweep.verdict": (study.result or {}).get("verdict"),
        "mlflow.parentRunId": first_round,
    }
    over = study.ended_at if study.state in OVER else None
    points = _finite(_result_points(study, over))[0] if over else ()
    return RunContent(
        name=study.label,
        tags=_texts(tags, TAG_LENGTH),
        params=_texts(wanted, PARAM_LENGTH),
        points=points,
        status=STUDY_STATUS[study.state],
        started=milliseconds(study.started_at or study.created_at),
        ended=milliseconds(over) if over else None,
    )


def _result_points(study: StudyRecord, ended: datetime) -> Iterable[Point]:
    """The result's figures, at the time the study ended."""
    result, metric = study.result or {}, study.spec.get("metric") or "metric"
    best = result.get("best") or {}
    low, high = best.get("test_interval") or (None, None)
    figures = {
        f"best_train_{metric}": best.get("train"),
        f"best_validation_{metric}": best.get("validation"),
        f"test_{metric}": best.get("test"),
        f"test_{metric}_low": low,
        f"test_{metric}_high": high,
        "best_trial": best.get("trial"),
        "weights": best.get("weights"),
        **{f"trials_{state}": count for state, count in (result.get("trials") or {}).items()},
        "seconds": result.get("seconds"),
    }
    return _points(figures, milliseconds(ended))


def trial_content(study: StudyRecord, trial: TrialRecord, epochs: Sequence[EpochRow], parent: str) -> RunContent:
    """The child run of a trial that has ended.

    Args:
        epochs: The trial's own, in any order.
        parent: Run id of the study's parent run.
    """
    metric = study.spec.get("metric") or "metric"
    ended = milliseconds(trial.ended_at or trial.started_at)
    points, left_out = _finite([*_epoch_points(metric, epochs), *_summary_points(metric, trial, ended)])
    tags = {
        KEY: trial_key(study, trial.number),
        STUDY_UID: study.uid,
        "mlflow.parentRunId": parent,
        "neurosweep.study": study.label,
        "neurosweep.kind": "trial",
        "neurosweep.trial": str(trial.number),
        "neurosweep.state": trial.state.value,
        "neurosweep.worker": trial.worker,
        "neurosweep.pack": str(trial.number if trial.pack is None else trial.pack),
        "neurosweep.seed": str(trial.seed),
        "neurosweep.error": trial.error,
        "neurosweep.not_finite": left_out,
        "neurosweep.would_stop": trial.would_stop,
    }
    return RunContent(
        name=f"trial-{trial.number}",
        tags=_texts(tags, TAG_LENGTH),
        params=_texts(trial.params, PARAM_LENGTH),
        points=points,
        status=TRIAL_STATUS[trial.state],
        started=milliseconds(trial.started_at),
        ended=ended,
    )


def extra_run_content(study: StudyRecord, run: ExtraRun, parent: str) -> RunContent:
    """The child run of an extra run; it keeps the epochs' metric, not their times, which are spread evenly.

    Args:
        parent: Run id of the study's parent run.
    """
    metric = study.spec.get("metric") or "metric"
    ended = milliseconds(run.at or study.created_at)
    length = round(1000 * run.seconds)
    figures = {
        f"best_train_{metric}": run.train,
        f"best_validation_{metric}": run.validation,
        "weights": run.weights or None,
        "seconds": run.seconds,
    }
    curve = [
        Point(name=f"validation_{metric}", value=value, at=ended - length + length * step // len(run.curve), step=step)
        for step, value in enumerate(run.curve, start=1)
    ]
    points, left_out = _finite([*curve, *_points(figures, ended)])
    tags = {
        KEY: extra_run_key(study, run),
        STUDY_UID: study.uid,
        "mlflow.parentRunId": parent,
        "neurosweep.study": study.label,
        "neurosweep.kind": "extra run",
        "neurosweep.probe": run.probe.value,
        "neurosweep.reason": REASONS[run.probe],
        "neurosweep.trial": run.trial,
        "neurosweep.amount": f"{run.amount:g}",
        "neurosweep.state": "complete" if run.error is None else "failed",
        "neurosweep.seed": run.seed,
        "neurosweep.error": run.error,
        "neurosweep.not_finite": left_out,
    }
    return RunContent(
        name=run.name,
        tags=_texts(tags, TAG_LENGTH),
        params=_texts({**_named(run.settings), "rows": run.rows, "epochs": run.epochs}, PARAM_LENGTH),
        points=points,
        status="FINISHED" if run.error is None else "FAILED",
        started=ended - length,
        ended=ended,
    )


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """What the trainer builds from, under the names that a trial's params have."""
    named = dict(settings)
    neurons, convolutions = named.pop("neurons", ()), named.pop("convolutions", ())
    named["model"] = named.pop("family", None)
    named["layers"] = len(neurons)
    named |= {f"neurons_{number}": width for number, width in enumerate(neurons, start=1)}
    if convolutions:
        named["conv_layers"] = len(convolutions)
        for number, layer in enumerate(convolutions, start=1):
            named |= {f"{name}_{number}": value for name, value in layer.items()}
    else:
        named.pop("padding", None)
    if named.get("optimizer") != "sgd":
        named.pop("momentum", None)
    return named


def _epoch_points(metric: str, epochs: Sequence[EpochRow]) -> Iterable[Point]:
    for row in sorted(epochs, key=lambda row: row.epoch):
        figures = {
            "train_loss": row.train_loss,
            f"train_{metric}": row.train_metric,
            "validation_loss": row.validation_loss,
            f"validation_{metric}": row.validation_metric,
            "epoch_seconds": row.seconds,
        }
        at = milliseconds(row.at)
        yield from (Point(name=name, value=value, at=at, step=row.epoch) for name, value in figures.items())


def _summary_points(metric: str, trial: TrialRecord, at: int) -> Iterable[Point]:
    """Figures of the best epoch's network: MLflow's tables show a metric's last value, which is another epoch's."""
    figures = {
        f"best_train_{metric}": trial.train,
        f"best_validation_{metric}": trial.validation,
        "best_epoch": trial.best_epoch or None,
        "weights": trial.weights or None,
        "seconds": trial.seconds,
    }
    return _points(figures, at)


def _points(figures: dict[str, float | int | None], at: int) -> Iterable[Point]:
    return (Point(name=name, value=float(value), at=at) for name, value in figures.items() if value is not None)


def _finite(points: Iterable[Point]) -> tuple[tuple[Point, ...], str | None]:
    """The points that MLflow can store (it makes 1.8e308 of infinity), and in words which ones are left out."""
    kept, left_out = [], dict[str, list[str]]()
    for point in points:
        if math.isfinite(point.value):
            kept.append(point)
        else:
            left_out.setdefault(point.name, []).append(f"{point.value} at {point.step}")
    words = "; ".join(f"{name}: {', '.join(values)}" for name, values in left_out.items())
    return tuple(kept), words or None


def _texts(values: dict[str, Any], length: int) -> dict[str, str]:
    """Values as MLflow keeps them, spelled as in a study file; what is None is left out."""
    return {name: _text(value)[:length] for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return str(value)
