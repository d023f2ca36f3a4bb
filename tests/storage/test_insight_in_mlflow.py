"""What stands beside the search arrives in MLflow: extra runs, pages, the verdict, rounds as one tree."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage.projection import milliseconds
from storage.publisher import Publisher
from storage.records import ExtraRun, NewStudy, Probe, StudyRecord
from storage.store import Store
from tests import small_study
from tests.faults.mlflow_compare import compare_mlflow

NETWORK: dict[str, Any] = {
    "family": "cnn",
    "neurons": [32, 16],
    "convolutions": [{"filters": 8, "filter_size": 3, "stride": 1, "pool": "max"}],
    "padding": "same",
    "activation": "relu",
    "learning_rate": 0.01,
    "optimizer": "adam",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "dropout": 0.5,
    "batch_norm": True,
    "batch_size": 32,
    "schedule": "cosine",
}
ENDED = small_study.START + timedelta(minutes=2)
RUN = ExtraRun(
    probe=Probe.SEED,
    trial=3,
    amount=2,
    settings=NETWORK,
    seed=2**62,
    train=0.25,
    validation=0.5,
    rows=100,
    epochs=3,
    seconds=6.0,
    weights=321,
    curve=(0.75, 0.5, 0.625),
    at=ENDED,
)
ROWS = replace(RUN, probe=Probe.ROWS, amount=0.25, rows=25, seed=1, curve=(0.9, float("nan"), 0.8))
FAILED = replace(
    RUN, probe=Probe.NEURONS, amount=2, train=None, validation=None, curve=(), error="out of memory: it takes 9 GB"
)


@pytest.fixture
def tracking(server: Any) -> str:
    return str(server.url)


def write_page(home: Path, study: StudyRecord, words: str) -> None:
    folder = home / "studies" / study.uid / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(f"<!doctype html><p>{words}</p>")


def publish(store: Store, tracking: str, home: Path) -> None:
    assert Publisher(store, tracking, home).publish_due().reason is None
    assert store.pending_facts() == 0


def runs_of(client: MlflowClient, name: str) -> dict[str, Run]:
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


def test_extra_runs_are_children_of_the_study_with_their_reason(store: Store, tracking: str, home: Path) -> None:
    study = small_study.whole_study(store, "extra", winner=None)
    store.record_extra_runs(study.id, [RUN, ROWS, FAILED])
    publish(store, tracking, home)
    client = MlflowClient(tracking)
    runs = runs_of(client, "extra")
    seed, rows, larger = (
        runs[name] for name in ("seed 2 of trial 3", "25 % of the rows of trial 3", "2 times the neurons of trial 3")
    )
    for run, probe, reason in (
        (seed, "seed", "what another seed makes of it"),
        (rows, "rows", "whether more rows would help"),
        (larger, "neurons", "whether a larger network would help"),
    ):
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == runs["extra"].info.run_id
        assert [tags[f"neurosweep.{word}"] for word in ("kind", "probe", "reason", "trial", "study")] == [
            *("extra run", probe, reason, "3", "extra")
        ]
    assert seed.data.params == {
        "model": "cnn",
        "layers": "2",
        "neurons_1": "32",
        "neurons_2": "16",
        "conv_layers": "1",
        "filters_1": "8",
        "filter_size_1": "3",
        "stride_1": "1",
        "pool_1": "max",
        "padding": "same",
        "activation": "relu",
        "learning_rate": "0.01",
        "optimizer": "adam",
        "weight_decay": "0.0",
        "dropout": "0.5",
        "batch_norm": "true",
        "batch_size": "32",
        "schedule": "cosine",
        "rows": "100",
        "epochs": "3",
    }
    end = milliseconds(ENDED)
    assert (seed.info.start_time, seed.info.end_time, seed.info.status) == (end - 6000, end, "FINISHED")
    points = client.get_metric_history(seed.info.run_id, "validation_error")
    assert sorted((point.step, point.value, point.timestamp) for point in points) == [
        *((1, 0.75, end - 4000), (2, 0.5, end - 2000), (3, 0.625, end))
    ]
    assert (seed.data.metrics["best_validation_error"], seed.data.metrics["weights"]) == (0.5, 321)
    assert rows.data.tags["neurosweep.not_finite"] == "validation_error: nan at 2"
    assert (larger.info.status, larger.data.tags["neurosweep.error"]) == ("FAILED", "out of memory: it takes 9 GB")


def test_a_page_is_an_artifact_of_the_parent_run_and_brings_the_verdict(
    store: Store, tracking: str, home: Path, network: Path, tmp_path: Path
) -> None:
    study = small_study.whole_study(store, "page")
    small_study.write_champion(home / "studies" / study.uid / "champion", network)
    publish(store, tracking, home)
    client = MlflowClient(tracking)
    assert "neurosweep.verdict" not in runs_of(client, "page")["page"].data.tags
    for turn, verdict in enumerate(("overfitting", "done")):
        write_page(home, study, f"it is {verdict}")
        store.record_verdict(study.id, verdict)
        store.publish_page(study.id, "report")
        publish(store, tracking, home)
        parent = runs_of(client, "page")["page"]
        assert (parent.data.tags["neurosweep.verdict"], parent.info.status) == (verdict, "FINISHED")
        scratch = tmp_path / str(turn)
        scratch.mkdir()
        page = Path(client.download_artifacts(parent.info.run_id, "pages/report.html", str(scratch)))
        assert f"it is {verdict}" in page.read_text()


def test_everything_twice_or_into_an_empty_mlflow_is_the_same(
    store: Store, tracking: str, fresh_tracking: str, home: Path
) -> None:
    study = small_study.whole_study(store, "all-of-it", winner=None)
    store.record_extra_runs(study.id, [RUN, ROWS, FAILED])
    write_page(home, study, "it is what it is")
    store.publish_page(study.id, "report")
    publish(store, tracking, home)
    for where in (tracking, fresh_tracking):
        assert store.tell_again(study.id) == 10
        publish(store, where, home)
        client = MlflowClient(where)
        assert compare_mlflow(store, client, study) == []
        parent = runs_of(client, "all-of-it")["all-of-it"]
        assert [file.path for file in client.list_artifacts(parent.info.run_id, "pages")] == ["pages/report.html"]


def test_rounds_form_one_tree(store: Store, fresh_tracking: str, home: Path) -> None:
    new = NewStudy(
        name="rounds",
        spec=small_study.spec("rounds"),
        text=small_study.TEXT,
        trials=4,
        round=1,
        sealed=True,
    )
    first = store.submit(new)
    second = store.submit(replace(new, tree=first.uid, round=2))
    for study in (first, second):
        claim = small_study.start(store, study)
        for number in range(4):
            small_study.end_trial(store, claim, number)
        small_study.finish(store, claim, winner=None)
    publish(store, fresh_tracking, home)
    client = MlflowClient(fresh_tracking)
    found = client.search_runs([client.get_experiment_by_name("rounds").experiment_id])
    parents = {run.info.run_name: run for run in found if run.data.tags["neurosweep.kind"] == "study"}
    assert {name: run.data.tags["neurosweep.round"] for name, run in parents.items()} == {
        "rounds": "1",
        "rounds@2": "2",
    }
    top = parents["rounds"].info.run_id
    assert "mlflow.parentRunId" not in parents["rounds"].data.tags
    assert parents["rounds@2"].data.tags["mlflow.parentRunId"] == top
    trials = [run.data.tags["mlflow.parentRunId"] for run in found if run.data.tags["neurosweep.kind"] == "trial"]
    assert sorted(trials) == sorted([top] * 4 + [parents["rounds@2"].info.run_id] * 4)
    for study in (first, second):
        assert compare_mlflow(store, client, study) == []


def test_a_sealed_study_ends_without_a_test_figure_and_without_a_model(
    store: Store, fresh_tracking: str, home: Path
) -> None:
    new = NewStudy(name="sealed", spec=small_study.spec("sealed"), text="", trials=4, round=1, sealed=True)
    claim = small_study.start(store, store.submit(new))
    for number in range(4):
        small_study.end_trial(store, claim, number)
    result = small_study.result_of("sealed", 3)
    result["best"] |= {"test": None, "test_interval": None}
    small_study.finish(store, claim, winner=3, result=result)
    publish(store, fresh_tracking, home)
    client = MlflowClient(fresh_tracking)
    parent = runs_of(client, "sealed")["sealed"]
    assert (parent.info.status, parent.data.metrics["best_validation_error"]) == ("FINISHED", 0.02)
    assert not [name for name in parent.data.metrics if name.startswith("test_")]
    assert client.search_registered_models("name = 'sealed'") == []
