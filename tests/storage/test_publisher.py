"""What the database holds arrives in MLflow, once, whatever happens on the way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from storage.publisher import Publisher
from storage.records import Batch, StudyRecord
from storage.store import Store
from tests import small_study


@pytest.fixture(params=["a file", "a server"])
def tracking(request: pytest.FixtureRequest) -> str:
    if request.param == "a file":
        return str(request.getfixturevalue("file_tracking"))
    return str(request.getfixturevalue("server").url)


def champion_and_plots(home: Path, study: StudyRecord, network: Path) -> None:
    folder = home / "studies" / study.uid
    small_study.write_champion(folder / "champion", network)
    (folder / "plots").mkdir()
    (folder / "plots" / "history.html").write_text("<p>history</p>")


def publish(store: Store, tracking: str, home: Path) -> None:
    turn = Publisher(store, tracking, home).publish_due()
    assert turn.reason is None
    assert store.pending_facts() == 0


def publish_all_again(store: Store, tracking: str, home: Path) -> None:
    """As if every acknowledgement had been lost."""
    with store._engine.begin() as connection:
        connection.execute(sa.text("UPDATE neurosweep_outbox SET published = 0"))
    publish(store, tracking, home)


def runs_of(client: MlflowClient, name: str, view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """Runs by name; fails where two share one."""
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id], run_view_type=view)
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


def history(client: MlflowClient, run: Run, metric: str) -> list[tuple[int, float, int]]:
    points = client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value, point.timestamp) for point in points)


def everything(client: MlflowClient, name: str) -> Any:
    """All that MLflow holds of a study, apart from artifacts."""
    runs = runs_of(client, name, ViewType.ALL)
    content = {
        run_name: (
            run.info.run_id,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            run.data.tags,
            {metric: history(client, run, metric) for metric in run.data.metrics},
        )
        for run_name, run in runs.items()
    }
    versions = [(v.version, v.run_id, v.tags) for v in client.search_model_versions(f"name = '{name}'")]
    experiment = client.get_experiment_by_name(name).experiment_id
    return content, versions, len(client.search_logged_models([experiment]))


def test_every_epoch_of_every_trial_arrives_with_its_value_and_time(store: Store, tracking: str, home: Path) -> None:
    name = "epochs"
    small_study.whole_study(store, name, winner=None)
    publish(store, tracking, home)
    client = MlflowClient(tracking)
    runs = runs_of(client, name)
    assert set(runs) == {name, "trial-0", "trial-1", "trial-2", "trial-3"}
    for number in range(4):
        rows, run = small_study.epoch_rows(number), runs[f"trial-{number}"]
        for metric, field in {
            "train_loss": "train_loss",
            "train_error": "train_metric",
            "validation_loss": "validation_loss",
            "validation_error": "validation_metric",
            "epoch_seconds": "seconds",
        }.items():
            values = [(row.epoch, getattr(row, field), round(row.at.timestamp() * 1000)) for row in rows]
            assert history(client, run, metric) == [point for point in values if math.isfinite(point[1])]
        assert "test_error" not in run.data.metrics


def test_a_trial_shows_its_settings_its_state_and_its_parent(store: Store, tracking: str, home: Path) -> None:
    name = "settings"
    study = small_study.whole_study(store, name, winner=None)
    publish(store, tracking, home)
    runs = runs_of(MlflowClient(tracking), name)
    wanted = [
        (0, "complete", "FINISHED"),
        (1, "pruned", "FINISHED"),
        (2, "failed", "FAILED"),
        (3, "complete", "FINISHED"),
    ]
    for number, state, status in wanted:
        run = runs[f"trial-{number}"]
        assert run.data.params == {
            "model": "mlp",
            "layers": "1",
            "neurons_1": str(16 + number),
            "learning_rate": "0.03333333333333333",
            "batch_norm": "true",
        }
        assert run.info.status == status
        assert run.info.start_time == round(small_study.START.timestamp() * 1000) + 10_000 * number
        assert run.info.end_time == run.info.start_time + 5_000
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == runs[name].info.run_id
        assert tags["neurosweep.key"] == f"study-{study.uid}-trial-{number}"
        assert [tags[f"neurosweep.{word}"] for word in ("study", "trial", "state", "worker", "pack")] == [
            name,
            str(number),
            state,
            f"worker-{number % 2}",
            str(number // 2 * 2),
        ]
    best = runs["trial-3"].data.metrics
    assert (best["best_validation_error"], best["best_epoch"], best["weights"]) == (0.125, 3, 1003)
    failed = runs["trial-2"].data.tags
    assert failed["neurosweep.error"] == "the loss is not finite"
    assert failed["neurosweep.not_finite"] == "train_loss: nan at 2"


def test_the_parent_run_has_the_file_the_result_and_the_test_figures(
    store: Store, tracking: str, home: Path, network: Path
) -> None:
    name = "parent"
    champion_and_plots(home, small_study.whole_study(store, name), network)
    publish(store, tracking, home)
    client = MlflowClient(tracking)
    parent = runs_of(client, name)[name]
    study = store.find(name)
    assert study.started_at is not None and study.ended_at is not None
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time == round(study.ended_at.timestamp() * 1000)
    assert parent.data.params == {
        "source": "shop.csv",
        "target": "bought",
        "task": "classification",
        "metric": "error",
        "model": "mlp, cnn",
        "sampler": "tpe",
        "pruner": "asha",
        "trials": "4",
        "epochs": "3",
        "seed": "7",
    }
    assert parent.data.tags["neurosweep.split_hash"] == "5p1i7"
    assert parent.data.metrics["test_error"] == 0.03
    assert parent.data.metrics["best_validation_error"] == 0.02
    assert (parent.data.metrics["test_error_low"], parent.data.metrics["test_error_high"]) == (0.005, 0.055)
    assert [parent.data.metrics[f"trials_{word}"] for word in ("total", "complete", "pruned", "failed")] == [4, 2, 1, 1]
    files = {
        entry: Path(client.download_artifacts(parent.info.run_id, entry, str(home))).read_text()
        for entry in ("study.yaml", "result.json", "plots/history.html")
    }
    assert files["study.yaml"] == small_study.TEXT
    assert json.loads(files["result.json"]) == small_study.result_of(name, 3)
    assert files["plots/history.html"] == "<p>history</p>"
    run = store.mlflow_run(study.id)
    assert run is not None
    assert (run.experiment_id, run.run_id) == (parent.info.experiment_id, parent.info.run_id)
    version = client.get_model_version_by_alias(name, "champion")
    assert (str(version.version), version.run_id, version.tags["neurosweep.trial"]) == ("1", parent.info.run_id, "3")


def test_publishing_everything_twice_changes_nothing(store: Store, tracking: str, home: Path, network: Path) -> None:
    name = "twice"
    champion_and_plots(home, small_study.whole_study(store, name), network)
    publish(store, tracking, home)
    client = MlflowClient(tracking)
    before = everything(client, name)
    publish_all_again(store, tracking, home)
    assert everything(client, name) == before
    content, versions, models = before
    assert (len(content), len(versions), models) == (5, 1, 1)


def test_facts_arrive_in_the_course_of_a_study(store: Store, file_tracking: str, home: Path) -> None:
    name = "course"
    publisher = Publisher(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    claim = small_study.start(store, small_study.submit(store, name))
    publisher.publish_due()
    assert runs_of(client, name)[name].info.status == "RUNNING"
    for number in range(2):
        small_study.end_trial(store, claim, number)
        publisher.publish_due()
        assert f"trial-{number}" in runs_of(client, name)
    assert runs_of(client, name)[name].info.status == "RUNNING"
    small_study.finish(store, claim, winner=None)
    publisher.publish_due()
    parent = runs_of(client, name)[name]
    assert (parent.info.status, parent.data.tags["neurosweep.error"]) == ("FAILED", "no good trial")
    assert client.search_registered_models(f"name = '{name}'") == []


def test_a_resumed_study_registers_a_new_version_only_for_a_new_winner(
    store: Store, file_tracking: str, home: Path, network: Path
) -> None:
    name = "resumed"
    champion_and_plots(home, small_study.whole_study(store, name, winner=0), network)
    publish(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    study = store.find(name)
    for turn, (winner, version) in enumerate([(0, "1"), (3, "2")], start=2):
        store.requeue(study.id)
        claim = store.claim("dispatcher", study_id=study.id)
        assert claim is not None
        small_study.finish(store, claim, winner, f"-{turn}")
        publish(store, file_tracking, home)
        champion = client.get_model_version_by_alias(name, "champion")
        assert (str(champion.version), champion.tags["neurosweep.trial"]) == (version, str(winner))
    assert len(runs_of(client, name)) == 5


def test_the_end_of_a_study_that_was_resumed_meanwhile_waits_for_its_next_end(
    store: Store, file_tracking: str, home: Path
) -> None:
    name = "meanwhile"
    study = small_study.whole_study(store, name, winner=None)
    store.requeue(study.id)
    assert store.claim("dispatcher", study_id=study.id)
    publish(store, file_tracking, home)
    assert runs_of(MlflowClient(file_tracking), name)[name].info.status == "RUNNING"


def test_a_second_study_of_a_name_shares_the_experiment_and_takes_the_alias(
    store: Store, file_tracking: str, home: Path, network: Path
) -> None:
    name = "again"
    for _ in range(2):
        champion_and_plots(home, small_study.whole_study(store, name), network)
        publish(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    experiment = client.get_experiment_by_name(name).experiment_id
    parents = client.search_runs([experiment], "tags.`neurosweep.kind` = 'study'")
    assert {run.info.run_name for run in parents} == {name, f"{name}@2"}
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"
    publish_all_again(store, file_tracking, home)
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"


def test_a_deleted_experiment_and_a_deleted_run_come_back(store: Store, file_tracking: str, home: Path) -> None:
    name = "deleted"
    small_study.whole_study(store, name, winner=None)
    publish(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    before = runs_of(client, name)
    client.delete_run(before["trial-1"].info.run_id)
    client.delete_experiment(before[name].info.experiment_id)
    publish_all_again(store, file_tracking, home)
    assert {run.info.run_id for run in runs_of(client, name).values()} == {r.info.run_id for r in before.values()}


def test_a_run_that_arrived_late_is_removed(store: Store, file_tracking: str, home: Path) -> None:
    name = "late"
    small_study.whole_study(store, name, winner=None)
    publish(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    kept = runs_of(client, name)["trial-0"]
    tags = {key: value for key, value in kept.data.tags.items() if not key.startswith("mlflow.runName")}
    client.create_run(kept.info.experiment_id, kept.info.start_time, tags, "trial-0")
    publish_all_again(store, file_tracking, home)
    assert runs_of(client, name)["trial-0"].info.run_id == kept.info.run_id


def test_more_epochs_than_one_request_can_carry_all_arrive(store: Store, file_tracking: str, home: Path) -> None:
    name = "long"
    claim = small_study.start(store, small_study.submit(store, name))
    small_study.end_trial(store, claim, 0)
    first = small_study.epoch_rows(0)[0]
    long = [replace(first, epoch=epoch) for epoch in range(4, 451)]
    store.record(claim, Batch(epochs=tuple(long)))
    publish(store, file_tracking, home)
    client = MlflowClient(file_tracking)
    run = runs_of(client, name)["trial-0"]
    for metric in ("train_loss", "train_error", "validation_loss", "validation_error", "epoch_seconds"):
        assert [point[0] for point in history(client, run, metric)] == list(range(1, 451))


def test_artifacts_of_a_file_store_lie_in_the_home_folder(store: Store, file_tracking: str, home: Path) -> None:
    small_study.whole_study(store, "artifacts", winner=None)
    publish(store, file_tracking, home)
    files = [file.name for file in (home / "mlartifacts").rglob("*") if file.is_file()]
    assert files == ["study.yaml"]
