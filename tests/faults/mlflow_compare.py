"""Whether MLflow holds exactly what the database holds: each run once, each value of each metric once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.store.entities import PagedList

from storage.facts import champion_key, extra_run_key, study_key, trial_key
from storage.projection import (
    KEY,
    OVER,
    STUDY_UID,
    RunContent,
    extra_run_content,
    study_content,
    trial_content,
)
from storage.records import EpochRow, StudyRecord, TrialState
from storage.store import Store

OURS = ("neurosweep.", "mlflow.parentRunId")
"""MLflow adds tags of its own."""


def compare_mlflow(store: Store, client: MlflowClient, study: StudyRecord) -> list[str]:
    """Every difference between a study's rows and its runs, in words; none where they are equal.

    Runs that were deleted on purpose (a request that arrived late had made them) don't count. Of a study that is still
    going on, the parent run's state is not looked at.
    """
    study = store.study(study.id)
    experiment = client.get_experiment_by_name(study.name)
    if experiment is None:
        return [f"no experiment {study.name}"] if _is_told(study) else []
    found = _runs(client, str(experiment.experiment_id), study)
    differences = [f"{key} is there {len(runs)} times" for key, runs in found.items() if len(runs) > 1]
    expected = dict(_expected(store, study, found))
    differences += [f"{key} is missing" for key in expected.keys() - found.keys()]
    differences += [f"{key} is nothing that the database has" for key in found.keys() - expected.keys()]
    for key in sorted(expected.keys() & found.keys()):
        going_on = key == study_key(study) and study.state not in OVER
        for run in found[key]:
            differences += [f"{key}: {word}" for word in _run(client, run, expected[key], study, going_on)]
    return differences + _champion(client, study)


def _is_told(study: StudyRecord) -> bool:
    """Whether MLflow has been told of it at all: not before its data were read, or before it ended without them."""
    return study.started_at is not None and (study.state in OVER or study.split_hash is not None)


def _runs(client: MlflowClient, experiment_id: str, study: StudyRecord) -> dict[str, list[Run]]:
    by_key: dict[str, list[Run]] = {}
    page = None
    while True:
        part: PagedList[Run] = client.search_runs(
            [experiment_id], f"tags.`{STUDY_UID}` = '{study.uid}'", ViewType.ACTIVE_ONLY, 1000, page_token=page
        )
        for run in part:
            by_key.setdefault(run.data.tags.get(KEY, "a run without a key"), []).append(run)
        page = part.token
        if not page:
            return by_key


def _expected(store: Store, study: StudyRecord, found: dict[str, list[Run]]) -> Iterator[tuple[str, RunContent]]:
    if not _is_told(study):
        return
    yield study_key(study), study_content(study, _first_round(store, study))
    parents = found.get(study_key(study))
    parent = parents[0].info.run_id if parents else "the parent run"
    epochs: dict[int, list[EpochRow]] = {}
    for row in store.epochs(study.id):
        epochs.setdefault(row.trial, []).append(row)
    for trial in store.trials(study.id):
        if trial.state is not TrialState.RUNNING:
            yield trial_key(study, trial.number), trial_content(study, trial, epochs.get(trial.number, []), parent)
    for extra in store.extra_runs(study.id):
        yield extra_run_key(study, extra), extra_run_content(study, extra, parent)


def _first_round(store: Store, study: StudyRecord) -> str | None:
    """Run id of the first round's parent run, where this is a later one."""
    first = store.by_uid(study.tree) if study.tree not in (None, study.uid) else None
    run = store.mlflow_run(first.id) if first else None
    return run.run_id if run else None


def _run(client: MlflowClient, run: Run, content: RunContent, study: StudyRecord, going_on: bool) -> Iterator[str]:
    """Differences of one run."""
    if run.data.params != content.params:
        yield f"params {run.data.params}, not {content.params}"
    if going_on:
        return
    info = run.info
    for word, is_, wanted in (
        ("name", info.run_name, content.name),
        ("status", info.status, content.status),
        ("start", info.start_time, content.started),
        ("end", info.end_time, content.ended),
    ):
        if is_ != wanted:
            yield f"{word} {is_}, not {wanted}"
    tags = {name: value for name, value in run.data.tags.items() if name.startswith(OURS)}
    for name in sorted(tags.keys() | content.tags.keys()):
        if tags.get(name) != content.tags.get(name):
            yield f"tag {name} {tags.get(name)!r}, not {content.tags.get(name)!r}"
    yield from _metrics(client, run, content, study)


def _metrics(client: MlflowClient, run: Run, content: RunContent, study: StudyRecord) -> Iterator[str]:
    wanted = Counter((point.name, point.step, point.value, point.at) for point in content.points)
    held = Counter(
        (point.key, point.step, point.value, point.timestamp)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )
    for point, count in (held - wanted).items():
        earlier_end = run.data.tags.get(KEY) == study_key(study) and count == 1 and point[3] < (content.ended or 0)
        if not (earlier_end and point not in wanted):  # a resumed study has ended before, with other figures
            yield f"metric {point} is there {held[point]} times, not {wanted[point]}"
    yield from (f"metric {point} is missing" for point in wanted - held)


def _champion(client: MlflowClient, study: StudyRecord) -> list[str]:
    best = (study.result or {}).get("best")
    if not best or study.state not in OVER:
        return []
    key = champion_key(study, best["trial"])
    versions = client.search_model_versions(f"name = '{study.name}' and tag.`{KEY}` = '{key}'")
    return [] if len(versions) == 1 else [f"{key} is registered {len(versions)} times"]
