"""The ledger: whether anything of a study is lost, doubled, stuck, out of order or left over.

It compares our tables, Optuna's own reader, the outbox, MLflow and the study's folder. Every test of a fault ends here.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.checkpoint_store import CheckpointStore
from storage.database import now
from storage.mlflow_door import connect
from storage.publisher import ALIAS
from storage.records import EpochRow, FactKind, StudyRecord, StudyState, TrialRecord, TrialState
from storage.schema import outbox, study
from storage.store import Store
from tests.faults.mlflow_compare import compare_mlflow

OPTUNA_STATE = {
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}

KEPT = ("checkpoints/best/", "checkpoints/trials/", "champion/", "plots/", "pages/")
"""All that a study may have in its folder; of `trials` only what is still to go on."""


def assert_whole(
    store: Store,
    label: str,
    *,
    trials: int,
    home: Path,
    tracking: str | None,
    state: StudyState = StudyState.FINISHED,
    clock_moved: bool = False,
) -> None:
    """Fails with every violation that `check` finds."""
    found = check(store, label, trials=trials, home=home, tracking=tracking, state=state, clock_moved=clock_moved)
    assert not found, f"{len(found)} violations:\n" + "\n".join(found)


def check(
    store: Store,
    label: str,
    *,
    trials: int,
    home: Path,
    tracking: str | None,
    state: StudyState = StudyState.FINISHED,
    clock_moved: bool = False,
) -> list[str]:
    """Every violation in words; none when all is well.

    Args:
        trials: How many were asked for. A study that did not finish may have fewer.
        tracking: MLflow's address, when all of the outbox has to be there; None where the study's end did not wait.
        state: How the study has to have ended.
        clock_moved: Somebody has set the machine's clock, so that times need not be in order.
    """
    record = store.find(label)
    rows = store.trials(record.id)
    epochs: dict[int, list[EpochRow]] = {row.number: [] for row in rows}
    strays = [epoch for epoch in store.epochs(record.id) if epoch.trial not in epochs]
    for epoch in store.epochs(record.id):
        epochs.get(epoch.trial, []).append(epoch)
    found = [f"epoch {epoch.epoch} belongs to no trial ({epoch.trial})" for epoch in strays]
    found += _study(record, rows, trials, state)
    for row in rows:
        found += [f"trial {row.number} {word}" for word in _trial(row, epochs[row.number], record)]
        if not clock_moved:
            found += [f"trial {row.number} {word}" for word in _times(row, epochs[row.number])]
    found += _result(record, rows)
    found += _optuna(store, record, rows, epochs)
    found += _outbox(store, record, rows, drained=tracking is not None)
    found += _leases(store, record)
    found += _files(record, rows, home)
    if tracking is not None:
        found += _mlflow(store, record, rows, tracking)
    return found


def _study(record: StudyRecord, rows: Sequence[TrialRecord], asked: int, state: StudyState) -> Iterator[str]:
    if record.state is not state:
        yield f"the study is {record.state}, not {state}: {record.error}"
    if record.notice:
        yield f"the study has a notice: {record.notice}"
    if [row.number for row in rows] != list(range(len(rows))):
        yield f"the trials' numbers have gaps: {[row.number for row in rows]}"
    if state is StudyState.FINISHED and len(rows) != asked:
        yield f"{len(rows)} trials, not the {asked} that were asked for"
    if len(rows) > asked:
        yield f"{len(rows)} trials, more than the {asked} that were asked for"
    # A study that was stopped goes on with the trials that were under way.
    running = [row.number for row in rows if row.state is TrialState.RUNNING]
    if running and state is not StudyState.STOPPED:
        yield f"trials {running} are still running"
    if record.ended_at is None:
        yield "the study has no end"


def _trial(row: TrialRecord, epochs: Sequence[EpochRow], record: StudyRecord) -> Iterator[str]:
    numbers = [epoch.epoch for epoch in epochs]
    if numbers != list(range(1, row.epochs + 1)):
        yield f"has the epochs {numbers}, not 1 to {row.epochs}"
    if row.state is TrialState.FAILED and not row.error:
        yield "failed without a reason"
    if row.state is TrialState.PRUNED and not epochs:
        yield "was pruned without an epoch"
    if row.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return
    if row.error:
        yield f"is {row.state}, but has an error: {row.error}"
    finite = [epoch for epoch in epochs if math.isfinite(epoch.validation_metric)]
    if finite:
        best = min(finite, key=lambda epoch: (epoch.validation_metric, epoch.epoch))
        if row.validation != best.validation_metric:
            yield f"has validation {row.validation}; its best epoch {best.epoch} has {best.validation_metric}"
        if row.best_epoch != best.epoch:
            yield f"has the best epoch {row.best_epoch}, not {best.epoch}"
    if row.state is TrialState.COMPLETE:
        if not finite or row.validation is None or row.train is None:
            yield f"is complete without figures: validation {row.validation}, train {row.train}"
        if row.epochs > record.spec["budget"]["epochs"]:
            yield f"has {row.epochs} epochs, more than the {record.spec['budget']['epochs']} of the study file"


def _times(row: TrialRecord, epochs: Sequence[EpochRow]) -> Iterator[str]:
    moments = [row.started_at, *(epoch.at for epoch in epochs)]
    if row.ended_at is not None:
        moments.append(row.ended_at)
    elif row.state is not TrialState.RUNNING:
        yield "ended at no time"
    if moments != sorted(moments):
        yield f"has times out of order: {[moment.isoformat() for moment in moments]}"


def _result(record: StudyRecord, rows: Sequence[TrialRecord]) -> Iterator[str]:
    result = record.result or {}
    best = result.get("best") or {}
    if record.state is not StudyState.FINISHED:
        return
    counts = Counter(row.state for row in rows)
    told = {name: (result.get("trials") or {}).get(name) for name in ("total", "complete", "pruned", "failed")}
    held = {"total": len(rows), **{name: counts[TrialState(name)] for name in ("complete", "pruned", "failed")}}
    if told != held:
        yield f"the result counts {told}; the rows are {held}"
    good = [row for row in rows if row.state is TrialState.COMPLETE and row.validation is not None]
    winner = min(good, key=lambda row: (row.validation, row.number), default=None)
    if winner is None or best.get("trial") != winner.number or best.get("validation") != winner.validation:
        yield f"the result's best is {best.get('trial')} ({best.get('validation')}); the smallest is {winner}"
    test = best.get("test")
    if not isinstance(test, float) or not math.isfinite(test):
        yield f"the test figure is {test}"


def _optuna(
    store: Store, record: StudyRecord, rows: Sequence[TrialRecord], epochs: dict[int, list[EpochRow]]
) -> Iterator[str]:
    """What plain Optuna reads from the same database."""
    url = store._engine.url.render_as_string(hide_password=False)
    try:
        seen = optuna.load_study(study_name=record.label, storage=url).trials if rows else []
    except KeyError:
        yield f"Optuna has no study {record.label}"
        return
    # Optuna's reader shows the last of two.
    twice = "SELECT number, count(*) FROM trials JOIN studies USING (study_id) WHERE study_name = :name GROUP BY number"
    with store._engine.connect() as connection:
        held = connection.execute(sa.text(twice), {"name": record.label}).all() if rows else []
    yield from (f"Optuna has trial {number} {count} times" for number, count in held if count > 1)
    by_number = {trial.number: trial for trial in seen}
    for number in sorted(by_number.keys() - {row.number for row in rows}):
        yield f"Optuna has trial {number}, which we have not"
    for row in rows:
        if row.number not in by_number:
            yield f"Optuna has not trial {row.number}"
        else:
            for word in _optuna_trial(by_number[row.number], row, epochs[row.number]):
                yield f"Optuna's trial {row.number} {word}"


def _optuna_trial(seen: FrozenTrial, row: TrialRecord, epochs: Sequence[EpochRow]) -> Iterator[str]:
    if seen.state is not OPTUNA_STATE[row.state]:
        yield f"is {seen.state.name}, ours is {row.state}"
    for name, value in seen.params.items():
        if row.params.get(name) != value:
            yield f"has {name} {value!r}, ours has {row.params.get(name)!r}"
    # Optuna keeps infinity, our column does not.
    steps = {step: value if math.isfinite(value) else None for step, value in seen.intermediate_values.items()}
    ours = {e.epoch: e.validation_metric if math.isfinite(e.validation_metric) else None for e in epochs}
    if steps != ours:
        yield f"has the intermediate values {steps}, ours are {ours}"
    value = None
    if row.state is TrialState.COMPLETE:
        value = row.validation
    elif row.state is TrialState.PRUNED:
        value = ours[max(ours)] if ours else None
    if seen.value != value and not (seen.value is not None and not math.isfinite(seen.value) and value is None):
        yield f"has the value {seen.value}, ours is {value}"
    if (seen.datetime_complete is None) != (row.ended_at is None):
        yield f"ended {seen.datetime_complete}, ours {row.ended_at}"


def _outbox(store: Store, record: StudyRecord, rows: Sequence[TrialRecord], drained: bool) -> Iterator[str]:
    query = sa.select(outbox).where(outbox.c.study_id == record.id)
    with store._engine.connect() as connection:
        facts = connection.execute(query).all()
    told = Counter(fact.trial for fact in facts if fact.kind == FactKind.TRIAL_ENDED)
    ended = Counter(row.number for row in rows if row.state is not TrialState.RUNNING)
    yield from (f"the outbox has no fact of the end of trial {number}" for number in sorted(ended - told))
    yield from (f"the outbox has {told[number]} facts of trial {number}" for number in sorted(told - ended, key=str))
    extra, held = len(store.extra_runs(record.id)), sum(fact.kind == FactKind.EXTRA_RUN_ENDED for fact in facts)
    if extra != held:
        yield f"the outbox has {held} facts of {extra} extra runs"
    kinds = Counter(fact.kind for fact in facts)
    if kinds[FactKind.STUDY_STARTED] != 1:
        yield f"the outbox has {kinds[FactKind.STUDY_STARTED]} facts of the study's start"
    if not kinds[FactKind.STUDY_ENDED]:
        yield "the outbox has no fact of the study's end"
    for fact in facts:
        if fact.set_aside:
            yield f"{fact.key} was set aside: {fact.reason}"
        elif drained and not fact.published:
            yield f"{fact.key} waits to be published: {fact.reason}"


def _leases(store: Store, record: StudyRecord) -> Iterator[str]:
    with store._engine.connect() as connection:
        row = connection.execute(
            sa.select(study.c.leased_until, study.c.published_until, now(connection).label("clock")).where(
                study.c.id == record.id
            )
        ).one()
    if row.leased_until is not None:
        yield f"a dispatcher's lease is still held, for {row.leased_until - row.clock:.1f} s"
    # A publisher that was killed lets go of nothing; its lease runs out.
    if row.published_until is not None and row.published_until > row.clock:
        yield f"a publisher's lease is still held, for {row.published_until - row.clock:.1f} s"


def _files(record: StudyRecord, rows: Sequence[TrialRecord], home: Path) -> Iterator[str]:
    folder = home / "studies" / record.uid
    checkpoints = CheckpointStore(str(folder / "checkpoints"))
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    yield from (f"{name} is left over" for name in sorted(files) if not name.startswith(KEPT))
    yield from (f"{name} is half written" for name in _scratch(home))
    going_on = {row.number for row in rows if row.state is TrialState.RUNNING}
    for trial, epochs in checkpoints.found().items():
        if trial not in going_on:
            yield f"a checkpoint of trial {trial}, which has ended, is left over, of the epochs {epochs}"
    if record.state is not StudyState.FINISHED:
        return
    wanted = ("champion/network.pt2", "champion/preprocessing.json", "champion/example.*")
    yield from (f"{name} is missing" for name in wanted if not list(folder.glob(name)))
    best, winner = checkpoints.best(), ((record.result or {}).get("best") or {}).get("trial")
    if best is None or best.trial != winner:
        yield f"the best network that is kept is of trial {best and best.trial}, not {winner}"


def _scratch(home: Path) -> list[str]:
    """Half-written files, wherever they are."""
    named = [file for file in home.rglob("*") if ".tmp" in file.name or file.name.startswith("tmp")]
    return sorted(os.path.relpath(file, home) for file in named)


def _mlflow(store: Store, record: StudyRecord, rows: Sequence[TrialRecord], tracking: str) -> Iterator[str]:
    client = connect(tracking)
    for difference in compare_mlflow(store, client, record):
        yield f"MLflow: {difference}"
    experiment = client.get_experiment_by_name(record.name)
    runs = client.search_runs([experiment.experiment_id], max_results=50_000) if experiment else []
    alive = [run.info.run_name for run in runs if run.info.status not in {"FINISHED", "FAILED", "KILLED"}]
    yield from (f"MLflow: {name} has not ended" for name in alive)
    if record.state is not StudyState.FINISHED:
        return
    best = ((record.result or {}).get("best") or {}).get("trial")
    versions = client.search_model_versions(f"name = '{record.name}'")
    told = {version.version: version.tags.get("neurosweep.trial") for version in versions}
    if list(told.values()) != [str(best)]:
        yield f"MLflow: the model's versions are of the trials {told}, not of {best} alone"
    alias = client.get_registered_model(record.name).aliases.get(ALIAS) if versions else None
    if alias is None or told.get(alias) != str(best):
        yield f"MLflow: the alias {ALIAS} is on version {alias}, which is not trial {best}"
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    ended = sum(row.state is not TrialState.RUNNING for row in rows) + len(store.extra_runs(record.id))
    if (len(parents), len(children)) != (1, ended):
        yield f"MLflow: {len(parents)} parent runs and {len(children)} children of {ended} ended trials and extra runs"
