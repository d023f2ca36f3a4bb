"""The team's set-up at work: every service runs, and a study goes from `submit` through all of them to MLflow."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from mlflow import MlflowClient

from tests.deploy.team import Team, running_team

pytestmark = pytest.mark.timeout(600)

STUDY = """\
name: iris-team
seed: 3
data: {source: iris}
model: mlp
space: {layers: 1, neurons: {low: 4, high: 16}, learning_rate: {low: 0.001, high: 0.1, log: true}}
search: {sampler: random, pruner: none}
budget: {trials: 4, epochs: 2}
workers: {count: 1, cpus: 1, gpus: 0}
"""


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with running_team() as team:
        yield team


@pytest.fixture(scope="module")
def finished(team: Team) -> dict[str, Any]:
    """The study, submitted where `docker compose exec dispatcher` would; its `status` when MLflow has all of it."""
    (team.folder / "study.yaml").write_text(STUDY)
    team.run("dispatcher", ["neurosweep", "submit", "study.yaml"])
    end = time.monotonic() + 240
    while time.monotonic() < end:
        status: dict[str, Any] = json.loads(team.run("dispatcher", ["neurosweep", "status", "iris-team", "--json"]))
        if status["state"] not in ("queued", "running") and status["unpublished"] == 0:
            return status
        assert team.is_alive("dispatcher"), team.log("dispatcher")
        time.sleep(1)
    raise AssertionError(f"The study did not end: {status}\n{team.log('dispatcher')[-3000:]}")


def test_a_study_goes_from_submit_to_mlflow(team: Team, finished: dict[str, Any]) -> None:
    assert finished["state"] == "finished"
    assert finished["trials"]["complete"] == finished["trials"]["total"] == 4

    client = MlflowClient(team.mlflow_url)
    runs = ended_runs(client, "iris-team", 5)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    [parent] = [run for run in runs if run not in children]
    assert len(children) == 4
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert [m.step for m in client.get_metric_history(child.info.run_id, "validation_error")] == [1, 2]
    lowest = min(child.data.metrics["validation_error"] for child in children)
    assert finished["best"]["validation"] <= lowest
    assert "test_error" in parent.data.metrics


def test_the_champion_lies_on_mlflows_volume(team: Team, finished: dict[str, Any]) -> None:
    assert finished["best"]["model"] == "models:/iris-team@champion"

    version = MlflowClient(team.mlflow_url).get_model_version_by_alias("iris-team", "champion")

    assert version.status == "READY"
    assert list((team.folder / "mlflow").rglob("network.pt2"))


def test_the_dispatchers_role_changes_rows_only(team: Team) -> None:
    address = team.address("dispatcher", "NEUROSWEEP_DATABASE_URL")
    with psycopg.connect(address, autocommit=True) as connection:
        tables = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        assert "trials" in tables  # Optuna's
        for statement in ("CREATE TABLE mine (id int)", "DROP TABLE trials", "TRUNCATE trials"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_each_role_enters_its_own_database_alone(team: Team) -> None:
    studies = team.address("dispatcher", "NEUROSWEEP_DATABASE_URL")
    mlflow = team.address("mlflow", "MLFLOW_BACKEND_STORE_URI").replace("postgresql+psycopg", "postgresql")
    for address, other in ((studies, "mlflow"), (mlflow, "neurosweep"), (mlflow, "postgres")):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(f"{address.rpartition('/')[0]}/{other}")


def test_a_wrong_password_is_refused(team: Team) -> None:
    address = team.address("dispatcher", "NEUROSWEEP_DATABASE_URL")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address.replace(team.settings["NEUROSWEEP_SERVICE_PASSWORD"], "guessed"))


@pytest.mark.parametrize("token", ["", "f" * 64])
def test_ray_turns_away_who_has_not_its_token(team: Team, token: str) -> None:
    check = ["ray", "health-check", f"--address={team.address('dispatcher', 'RAY_ADDRESS')}"]
    team.run("dispatcher", check)  # with it, it answers

    environment = team.environment("dispatcher") | {"RAY_AUTH_TOKEN": token}
    said = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=60)

    assert said.returncode != 0
    assert "token" in said.stderr.lower()


def test_mlflow_turns_away_other_host_names(team: Team) -> None:
    address = f"{team.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.status == 200

    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=10)
    assert refusal.value.code == 403


def test_no_secret_shows_in_a_process_list_or_a_log(team: Team, finished: dict[str, Any]) -> None:
    lines = team.command_lines()
    assert any("gcs_server" in line for line in lines)
    assert any("mlflow" in line for line in lines)

    for secret in team.secrets:
        assert not any(secret in line for line in lines)
        assert not any(secret in team.log(name) for name in ("postgres", "mlflow", "ray-head", "worker", "dispatcher"))


def ended_runs(client: MlflowClient, experiment: str, number: int, seconds: float = 60) -> list[Any]:
    """The experiment's runs, once there are so many and all are finished: the publisher may be a moment behind."""
    end = time.monotonic() + seconds
    while True:
        found = client.get_experiment_by_name(experiment)
        runs: list[Any] = client.search_runs([found.experiment_id]) if found else []
        if len(runs) == number and {run.info.status for run in runs} == {"FINISHED"}:
            return runs
        assert time.monotonic() < end, f"MLflow has {[(run.info.run_name, run.info.status) for run in runs]}"
        time.sleep(0.5)
