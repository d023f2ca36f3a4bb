"""The MLflow in memory answers as the real one does, errors included: the same requests go to both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowException
from mlflow.entities import Metric, Param, RunTag, ViewType

from storage.mlflow_door import connect
from tests.faults.fake_mlflow import FakeClient, FakeMlflow

STUDY = "neurosweep.study_id"


class Asked:
    """One client, with all that it has answered; ids, which differ, are numbered in the order of their first sight."""

    def __init__(self, client: Any, scratch: Path) -> None:
        self.client = client
        self.answers: list[Any] = []
        self._scratch = scratch
        self.experiment = ""
        self.runs: list[str] = []

    def ask(self, request: Callable[[], Any], show: Callable[[Any], Any] = lambda answer: answer) -> Any:
        try:
            answer = request()
        except MlflowException as error:
            self.answers.append(error.error_code)
            return None
        self.answers.append(show(answer))
        return answer

    def make_experiment(self, name: str) -> None:
        location = self._scratch.as_uri()
        made = self.ask(lambda: self.client.create_experiment(name, artifact_location=location, tags={}), bool)
        self.experiment = made or self.experiment

    def make_run(self, key: str, started: int) -> None:
        tags = {"neurosweep.key": key, STUDY: "5"}
        run = self.ask(lambda: self.client.create_run(self.experiment, started, tags, key), self.shown)
        if run is not None:
            self.runs.append(run.info.run_id)

    def search(self, study: str = "5", size: int = 1000) -> None:
        token = None
        while True:
            found = self.client.search_runs(
                [self.experiment],
                f"tags.`{STUDY}` = '{study}'",
                run_view_type=ViewType.ALL,
                max_results=size,
                order_by=["attributes.end_time DESC"],
                page_token=token,
            )
            self.answers.append([self.shown(run) for run in found])
            if not (token := found.token):
                return

    def shown(self, run: Any) -> Any:
        info, tags = run.info, run.data.tags
        ours = {name: value for name, value in tags.items() if name.startswith(("neurosweep", "mlflow.runName"))}
        times = info.start_time, info.end_time
        return info.run_name, info.status, times, info.lifecycle_stage, ours, run.data.params, run.data.metrics

    def history(self, run: int, metric: str) -> None:
        points = self.client.get_metric_history(self.runs[run], metric)
        self.answers.append(sorted((point.step, point.timestamp, point.value) for point in points))


def requests(asked: Asked) -> None:
    """All that the publisher does, well and badly, in an order in which it could come to it."""
    client = asked.client
    asked.ask(lambda: client.get_experiment_by_name("digits"))
    asked.make_experiment("digits")
    asked.make_experiment("digits")  # RESOURCE_ALREADY_EXISTS
    asked.ask(lambda: client.get_experiment_by_name("digits"), lambda found: (found.name, found.lifecycle_stage))
    for key, started in (("study-5", 1000), ("trial-0", 1001), ("trial-1", 1002), ("trial-0", 1003)):
        asked.make_run(key, started)
    parent, first, second, doubled = asked.runs
    metrics = [Metric("loss", 0.5, 7, 1), Metric("loss", 0.25, 9, 2)]
    batch = metrics, [Param("layers", "2")], [RunTag("neurosweep.state", "complete")]
    asked.ask(lambda: client.log_batch(first, *batch, synchronous=True))
    asked.ask(lambda: client.log_batch(first, *batch, synchronous=True))  # the same again changes nothing
    asked.history(1, "loss")
    asked.ask(lambda: client.log_batch(first, [Metric("loss", 0.5, 8, 1)], [], [], synchronous=True))  # doubles it
    asked.history(1, "loss")
    asked.ask(lambda: client.log_batch(first, [], [Param("layers", "3")], [], synchronous=True))
    asked.ask(lambda: client.log_batch(first, [], [], [RunTag("neurosweep.state", "pruned")], synchronous=True))
    asked.ask(lambda: client.delete_tag(first, "neurosweep.state"))
    asked.ask(lambda: client.delete_tag(first, "neurosweep.state"))
    asked.ask(lambda: client.get_run(first), asked.shown)
    asked.ask(lambda: client.get_run("0" * 32), asked.shown)
    asked.ask(lambda: client.set_terminated(first, "FINISHED", 2000))
    asked.ask(lambda: client.set_terminated(second, "FAILED", 3000))
    asked.ask(lambda: client.set_terminated(doubled, "FINISHED", 2000))
    asked.search()
    asked.search(size=2)
    asked.search(study="6")
    by_key = [asked.experiment], "tags.`neurosweep.key` = 'trial-0'", ViewType.ALL
    asked.ask(lambda: client.search_runs(*by_key, max_results=1), lambda runs: [asked.shown(run) for run in runs])
    asked.ask(lambda: client.delete_run(doubled))
    asked.ask(lambda: client.delete_run(doubled))
    asked.ask(lambda: client.log_batch(doubled, metrics, [], [], synchronous=True))
    asked.ask(lambda: client.set_terminated(doubled, "FINISHED", 2000))
    asked.search()
    asked.ask(lambda: client.restore_run(doubled))
    asked.ask(lambda: client.restore_run(doubled))
    asked.ask(lambda: client.log_text(parent, "name: digits", "study.yaml"))
    asked.ask(lambda: client.delete_experiment(asked.experiment))
    asked.make_run("trial-2", 1004)
    asked.search()
    asked.ask(lambda: client.restore_experiment(asked.experiment))
    asked.search()
    missing = "0" * 32
    asked.ask(lambda: client.log_batch(missing, metrics, [], [], synchronous=True))
    asked.ask(lambda: client.delete_run(missing))


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Asked(connect(f"sqlite:///{tmp_path}/mlflow.db"), tmp_path)


def test_the_mlflow_in_memory_answers_as_the_real_one(real: Asked, tmp_path: Path) -> None:
    fake = Asked(FakeClient(FakeMlflow()), tmp_path)
    requests(real)
    requests(fake)
    assert fake.answers == real.answers


def test_of_two_runs_that_ended_and_began_at_the_same_moment_the_order_is_by_id(real: Asked, tmp_path: Path) -> None:
    for asked in (real, Asked(FakeClient(FakeMlflow()), tmp_path)):
        asked.make_experiment("digits")
        for _ in range(6):
            asked.make_run("trial-0", 1000)
        for run in asked.runs:
            asked.client.set_terminated(run, "FINISHED", 2000)
        found = asked.client.search_runs(
            [asked.experiment],
            f"tags.`{STUDY}` = '5'",
            run_view_type=ViewType.ALL,
            max_results=1000,
            order_by=["attributes.end_time DESC"],
        )
        assert [run.info.run_id for run in found] == sorted(asked.runs)
