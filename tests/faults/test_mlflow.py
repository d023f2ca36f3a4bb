"""MLflow fails in every way that it can, and ends up holding exactly what the database holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric

from storage.publisher import Publisher
from storage.store import Store
from tests import small_study
from tests.faults.mlflow_compare import compare_mlflow


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    yield store
    store.close()


def test_the_comparison_sees_what_is_lost_doubled_and_changed(store: Store, home: Path, tmp_path: Path) -> None:
    study = small_study.whole_study(store, winner=None)
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    Publisher(store, address, home).publish_due()
    client = MlflowClient(address)
    assert compare_mlflow(store, client, study) == []
    experiment = client.get_experiment_by_name(study.name).experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}

    first = runs["trial-0"]
    point = client.get_metric_history(first.info.run_id, "train_loss")[0]
    client.log_batch(first.info.run_id, [Metric("train_loss", point.value, point.timestamp + 1, point.step)])
    client.create_run(experiment, 1, runs["trial-1"].data.tags)
    client.delete_run(runs["trial-2"].info.run_id)
    client.set_tag(runs["trial-3"].info.run_id, "neurosweep.state", "failed")
    with store._engine.begin() as connection:
        connection.execute(sa.text("UPDATE neurosweep_epoch SET train_loss = 9 WHERE trial = 3 AND epoch = 1"))
    words = "\n".join(compare_mlflow(store, client, study))
    for difference in (
        f"{study.uid}-trial-0: metric ('train_loss', 1, 1.0, {point.timestamp + 1}) is there 1 times, not 0",
        f"{study.uid}-trial-1 is there 2 times",
        f"{study.uid}-trial-2 is missing",
        f"{study.uid}-trial-3: tag neurosweep.state 'failed', not 'complete'",
        f"{study.uid}-trial-3: metric ('train_loss', 1, 9.0",
    ):
        assert difference in words
