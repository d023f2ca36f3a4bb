"""The ledger itself: a healthy study passes, and each kind of damage is caught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric

from search.checkpoint_store import BestNetwork, CheckpointStore
from storage.store import Store
from tests.faults.ledger import check
from tests.faults.product import Fleet, study
from trainer.work import Snapshot

TRIALS = 8


@dataclass(frozen=True)
class Case:
    """A copy of the healthy study, to be damaged."""

    fleet: Fleet
    engine: sa.Engine
    client: MlflowClient
    folder: Path
    winner: int

    def sql(self, statement: str) -> int:
        with self.engine.begin() as connection:
            return connection.execute(sa.text(statement)).rowcount

    def run(self, trial: int) -> Any:
        experiment = self.client.get_experiment_by_name("iris").experiment_id
        (run,) = self.client.search_runs([experiment], f"tags.`neurosweep.trial` = '{trial}'")
        return run


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("healthy"))
    fleet.product()("run", fleet.write("iris", study("iris", trials=TRIALS, epochs=6)))
    return fleet


@pytest.fixture
def case(healthy: Fleet, tmp_path: Path) -> Case:
    shutil.copytree(healthy.home, tmp_path / ".neurosweep", ignore=shutil.ignore_patterns("mlartifacts"))
    fleet = Fleet(tmp_path)
    with fleet.store() as store:
        record = store.find("iris")
        assert record.result is not None
        return Case(
            fleet,
            sa.create_engine(fleet.url),
            MlflowClient(fleet.tracking),
            fleet.home / "studies" / record.uid,
            record.result["best"]["trial"],
        )


def test_a_healthy_study_passes(healthy: Fleet) -> None:
    healthy.assert_whole("iris", TRIALS)


def _double_in_optuna(case: Case) -> None:
    case.sql(
        "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
        "SELECT number, study_id, state, datetime_start, datetime_complete FROM trials WHERE number = 3"
    )


def _extra_in_optuna(case: Case) -> None:
    case.sql("INSERT INTO trials (number, study_id, state) SELECT 8, study_id, 'RUNNING' FROM trials WHERE number = 3")


def _double_a_run(case: Case) -> None:
    run = case.run(1)
    made = case.client.create_run(run.info.experiment_id, run.info.start_time, run.data.tags, run.info.run_name)
    case.client.set_terminated(made.info.run_id, "FINISHED", run.info.end_time)


def _double_a_metric(case: Case) -> None:
    run_id = case.run(2).info.run_id
    point = case.client.get_metric_history(run_id, "train_loss")[0]
    case.client.log_batch(run_id, [Metric(point.key, point.value, point.timestamp + 1, point.step)])


def _another_winner(case: Case) -> None:
    case.sql(f"UPDATE neurosweep_study SET result = json_set(result, '$.best.trial', {(case.winner + 1) % TRIALS})")


def _another_version(case: Case) -> None:
    (version,) = case.client.search_model_versions("name = 'iris'")
    case.client.create_model_version("iris", version.source, version.run_id, tags=version.tags)


def _moved_alias(case: Case) -> None:
    case.client.delete_registered_model_alias("iris", "champion")


def _a_left_over_checkpoint(case: Case) -> None:
    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]] = {"weights": np.zeros(3)}
    CheckpointStore(str(case.folder / "checkpoints")).save(Snapshot(trial=3, epoch=2, arrays=arrays, facts={}))


def _a_left_over_file(case: Case) -> None:
    (case.folder / "notes.txt").write_bytes(b"x")


def _a_half_written_file(case: Case) -> None:
    (case.folder / "champion" / "network.tmp").write_bytes(b"x")


def _damaged_networks(case: Case) -> None:
    for file in (case.folder / "checkpoints" / "best").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"x")


def _another_network(case: Case) -> None:
    network = BestNetwork(trial=(case.winner + 1) % TRIALS, validation=0.0, weights={"weights": np.zeros(3)})
    CheckpointStore(str(case.folder / "checkpoints")).keep_best(network)


def _no_champion(case: Case) -> None:
    (case.folder / "champion" / "network.pt2").unlink()


def _sql(statement: str) -> Callable[[Case], None]:
    def damage(case: Case) -> None:
        assert case.sql(statement) > 0

    return damage


DAMAGES: dict[str, tuple[Callable[[Case], None], str]] = {
    "an epoch is gone": (
        _sql("DELETE FROM neurosweep_epoch WHERE trial = 2 AND epoch = 1"),
        "trial 2 has the epochs",
    ),
    "an epoch of no trial": (
        _sql(
            "INSERT INTO neurosweep_epoch SELECT study_id, 77, epoch, train_loss, train_metric, validation_loss, "
            "validation_metric, seconds, at FROM neurosweep_epoch WHERE trial = 2 AND epoch = 1"
        ),
        "epoch 1 belongs to no trial (77)",
    ),
    "a trial is gone": (_sql("DELETE FROM neurosweep_trial WHERE number = 4"), "the trials' numbers have gaps"),
    "a trial is stuck": (
        _sql("UPDATE neurosweep_trial SET state = 'running', ended_at = NULL WHERE number = 4"),
        "trials [4] are still running",
    ),
    "a trial's state is another": (
        _sql("UPDATE neurosweep_trial SET state = 'failed' WHERE number = 5"),
        "trial 5 failed without a reason",
    ),
    "a trial ended before it began": (
        _sql("UPDATE neurosweep_trial SET ended_at = '2020-01-01 00:00:00.000000' WHERE number = 5"),
        "trial 5 has times out of order",
    ),
    "a trial's value is another": (
        _sql("UPDATE neurosweep_trial SET validation = 0.0123 WHERE number = 6"),
        "trial 6 has validation 0.0123",
    ),
    "a trial's best epoch is another": (
        _sql("UPDATE neurosweep_trial SET best_epoch = 99 WHERE number = 6"),
        "trial 6 has the best epoch 99",
    ),
    "another winner": (_another_winner, "the result's best is"),
    "the result counts otherwise": (
        _sql("UPDATE neurosweep_study SET result = json_set(result, '$.trials.pruned', 99)"),
        "the result counts",
    ),
    "no test figure": (
        _sql("UPDATE neurosweep_study SET result = json_set(result, '$.best.test', NULL)"),
        "the test figure is None",
    ),
    "a notice stayed": (_sql("UPDATE neurosweep_study SET notice = 'the disk is full'"), "the study has a notice"),
    "a lease stayed": (_sql("UPDATE neurosweep_study SET leased_until = 9e9"), "a dispatcher's lease is still held"),
    "a publisher's lease stayed": (
        _sql("UPDATE neurosweep_study SET published_until = 9e9"),
        "a publisher's lease is still held",
    ),
    "the study is running": (_sql("UPDATE neurosweep_study SET state = 'running'"), "the study is running"),
    "Optuna has a trial twice": (_double_in_optuna, "Optuna has trial 3 2 times"),
    "Optuna has one more": (_extra_in_optuna, "Optuna has trial 8, which we have not"),
    "Optuna's trial is stuck": (
        _sql("UPDATE trials SET state = 'RUNNING' WHERE number = 3"),
        "Optuna's trial 3 is RUNNING",
    ),
    "Optuna's value is another": (
        _sql("UPDATE trial_values SET value = 0.0123 WHERE trial_id = 1"),
        "Optuna's trial 0 has the value 0.0123",
    ),
    "Optuna has lost an epoch": (
        _sql("DELETE FROM trial_intermediate_values WHERE step = 1 AND trial_id = 2"),
        "Optuna's trial 1 has the intermediate values",
    ),
    "Optuna's setting is another": (
        _sql("UPDATE trial_params SET param_value = 0.0055 WHERE param_name = 'learning_rate' AND trial_id = 2"),
        "Optuna's trial 1 has learning_rate 0.0055",
    ),
    "a fact is not published": (
        _sql("UPDATE neurosweep_outbox SET published = 0 WHERE trial = 3"),
        "-trial-3 waits to be published",
    ),
    "a fact was set aside": (
        _sql("UPDATE neurosweep_outbox SET published = 0, set_aside = 1 WHERE trial = 3"),
        "-trial-3 was set aside",
    ),
    "a fact is gone": (
        _sql("DELETE FROM neurosweep_outbox WHERE trial = 3"),
        "the outbox has no fact of the end of trial 3",
    ),
    "a fact is there twice": (
        _sql(
            "INSERT INTO neurosweep_outbox (study_id, key, kind, trial, attempts, not_before, published, set_aside) "
            "SELECT study_id, key || '-2', kind, trial, 0, 0, 1, 0 FROM neurosweep_outbox WHERE trial = 3"
        ),
        "the outbox has 2 facts of trial 3",
    ),
    "the end was never told": (
        _sql("DELETE FROM neurosweep_outbox WHERE kind = 'study_ended'"),
        "the outbox has no fact of the study's end",
    ),
    "a run is there twice": (_double_a_run, "-trial-1 is there 2 times"),
    "a run is gone": (lambda case: case.client.delete_run(case.run(1).info.run_id), "-trial-1 is missing"),
    "a metric is there twice": (_double_a_metric, "-trial-2: metric ('train_loss', 1,"),
    "a run goes on": (
        lambda case: case.client.update_run(case.run(1).info.run_id, "RUNNING"),
        "trial-1 has not ended",
    ),
    "two versions of the model": (_another_version, "the model's versions are of the trials"),
    "no champion in MLflow": (_moved_alias, "the alias champion is on version None"),
    "a checkpoint is left over": (_a_left_over_checkpoint, "a checkpoint of trial 3, which has ended, is left over"),
    "a file is left over": (_a_left_over_file, "notes.txt is left over"),
    "half a file is left over": (_a_half_written_file, "champion/network.tmp is half written"),
    "the best network is damaged": (_damaged_networks, "the best network that is kept is of trial None"),
    "the best network is another's": (_another_network, "the best network that is kept is of trial"),
    "the champion is gone": (_no_champion, "champion/network.pt2 is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_is_caught(case: Case, kind: str) -> None:
    damage, words = DAMAGES[kind]
    damage(case)
    store = Store.open(case.fleet.url)
    found = check(store, "iris", trials=TRIALS, home=case.fleet.home, tracking=case.fleet.tracking)
    assert words in "\n".join(found)


def test_a_study_of_fewer_trials_than_were_asked_for_is_caught(healthy: Fleet) -> None:
    with healthy.store() as store:
        found = check(store, "iris", trials=TRIALS + 1, home=healthy.home, tracking=None)
    assert found == [f"{TRIALS} trials, not the {TRIALS + 1} that were asked for"]
