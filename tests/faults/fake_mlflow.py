"""MLflow in memory, for what the publisher asks of it. `test_fake_mlflow.py` holds it to the real one.

Every request passes through the client's `wire`, where a test may lose it or its answer, delay it, or break off.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mlflow import MlflowException
from mlflow.entities import ViewType
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

Wire = Callable[[str, Callable[[], Any]], Any]
"""Is given a request's name and what it does; returns its answer."""

Point = tuple[str, float, int, int]
"""A metric's name, value, time stamp and step."""

_TAG = re.compile(r"tags\.`([^`]+)` = '([^']*)'")


def unbroken(name: str, request: Callable[[], Any]) -> Any:
    return request()


class Page(list[Any]):
    """One page of answers.

    Attributes:
        token: Asks for the next one; None where this is the last.
    """

    token: str | None = None


@dataclass
class Experiment:
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"


@dataclass
class FakeRun:
    """
    Attributes:
        points: What MLflow's metric table holds: the same row again is no second one.
    """

    run_id: str
    experiment_id: str
    name: str | None
    start_time: int | None
    tags: dict[str, str]
    end_time: int | None = None
    status: str = "RUNNING"
    lifecycle_stage: str = "active"
    params: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)


class FakeMlflow:
    """The server's side."""

    def __init__(self) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.runs: dict[str, FakeRun] = {}
        self._numbers = itertools.count()

    def active_runs(self) -> list[FakeRun]:
        return [run for run in self.runs.values() if run.lifecycle_stage == "active"]

    def new_id(self) -> str:
        """As good as random, as the real ones are, and the same in each test."""
        return hashlib.sha256(str(next(self._numbers)).encode()).hexdigest()[:32]


class FakeClient:
    """Has the methods of `mlflow.MlflowClient` that the publisher calls."""

    def __init__(self, server: FakeMlflow, wire: Wire = unbroken) -> None:
        self._server = server
        self._wire = wire

    # Experiments

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        found: Experiment | None = self._wire("get_experiment_by_name", lambda: self._server.experiments.get(name))
        return found

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        def create() -> str:
            if name in self._server.experiments:
                raise MlflowException(f"Experiment(name={name}) already exists.", RESOURCE_ALREADY_EXISTS)
            made = Experiment(experiment_id=str(len(self._server.experiments) + 1), name=name)
            self._server.experiments[name] = made
            return made.experiment_id

        made: str = self._wire("create_experiment", create)
        return made

    def delete_experiment(self, experiment_id: str) -> None:
        def delete() -> None:
            self._experiment(experiment_id).lifecycle_stage = "deleted"
            for run in self._server.runs.values():
                if run.experiment_id == experiment_id:
                    run.lifecycle_stage = "deleted"

        self._wire("delete_experiment", delete)

    def restore_experiment(self, experiment_id: str) -> None:
        def restore() -> None:
            self._experiment(experiment_id).lifecycle_stage = "active"
            for run in self._server.runs.values():
                if run.experiment_id == experiment_id:
                    run.lifecycle_stage = "active"

        self._wire("restore_experiment", restore)

    # Runs

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        def create() -> Any:
            if self._experiment(experiment_id).lifecycle_stage != "active":
                raise MlflowException(f"The experiment {experiment_id} must be active.", INVALID_PARAMETER_VALUE)
            run = FakeRun(
                run_id=self._server.new_id(),
                experiment_id=experiment_id,
                name=run_name,
                start_time=start_time,
                tags={**tags, "mlflow.runName": run_name},
            )
            self._server.runs[run.run_id] = run
            return _seen(run)

        return self._wire("create_run", create)

    def get_run(self, run_id: str) -> Any:
        return self._wire("get_run", lambda: _seen(self._run(run_id)))

    def delete_run(self, run_id: str) -> None:
        def delete() -> None:
            self._run(run_id).lifecycle_stage = "deleted"

        self._wire("delete_run", delete)

    def restore_run(self, run_id: str) -> None:
        def restore() -> None:
            self._run(run_id).lifecycle_stage = "active"

        self._wire("restore_run", restore)

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str,
        run_view_type: int,
        max_results: int,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Runs with one tag, the latest start first, then by id; where it is asked for, the latest end before that."""
        assert list(order_by) in ([], ["attributes.end_time DESC"])
        assert run_view_type == ViewType.ALL
        wanted = _TAG.fullmatch(filter_string)
        assert wanted is not None, filter_string

        def search() -> Page:
            found = [
                run
                for run in self._server.runs.values()
                if run.experiment_id in experiment_ids and run.tags.get(wanted[1]) == wanted[2]
            ]
            found.sort(key=lambda run: (-(run.start_time or 0), run.run_id))
            if order_by:
                found.sort(key=lambda run: (run.end_time is None, -(run.end_time or 0)))
            first = int(page_token or 0)
            page = Page(_seen(run) for run in found[first : first + max_results])
            page.token = str(first + max_results) if len(found) > first + max_results else None
            return page

        page: Page = self._wire("search_runs", search)
        return page

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
        synchronous: bool | None = None,
    ) -> None:
        def store() -> None:
            run = self._run(run_id, active=True)
            for param in params:
                if run.params.get(param.key, param.value) != param.value:
                    message = f"Changing param values is not allowed. Param with key='{param.key}' was already logged"
                    raise MlflowException(message, INVALID_PARAMETER_VALUE)
            run.params.update({param.key: param.value for param in params})
            run.points.update((metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics)
            run.tags.update({tag.key: tag.value for tag in tags})

        self._wire("log_batch", store)

    def delete_tag(self, run_id: str, key: str) -> None:
        def delete() -> None:
            if self._run(run_id, active=True).tags.pop(key, None) is None:
                raise MlflowException(f"No tag with name: {key} in run with id {run_id}", RESOURCE_DOES_NOT_EXIST)

        self._wire("delete_tag", delete)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        def store() -> None:
            self._run(run_id).texts[artifact_file] = text

        self._wire("log_text", store)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        def end() -> None:
            run = self._run(run_id, active=True)
            run.status, run.end_time = status or "FINISHED", end_time

        self._wire("set_terminated", end)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        points = sorted(point for point in self._run(run_id).points if point[0] == key)
        return [SimpleNamespace(key=name, value=value, timestamp=at, step=step) for name, value, at, step in points]

    # How

    def _experiment(self, experiment_id: str) -> Experiment:
        for experiment in self._server.experiments.values():
            if experiment.experiment_id == experiment_id:
                return experiment
        raise MlflowException(f"No Experiment with id={experiment_id} exists", RESOURCE_DOES_NOT_EXIST)

    def _run(self, run_id: str, active: bool = False) -> FakeRun:
        run = self._server.runs.get(run_id)
        if run is None:
            raise MlflowException(f"Run with id={run_id} not found", RESOURCE_DOES_NOT_EXIST)
        if active and run.lifecycle_stage != "active":
            message = f"The run {run_id} must be in the 'active' state. Current state is {run.lifecycle_stage}."
            raise MlflowException(message, INVALID_PARAMETER_VALUE)
        return run


def _seen(run: FakeRun) -> Any:
    """As a client gets it."""
    latest = {name: value for name, value, at, step in sorted(run.points, key=lambda point: (point[3], point[2]))}
    info = SimpleNamespace(
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        run_name=run.name,
        status=run.status,
        start_time=run.start_time,
        end_time=run.end_time,
        lifecycle_stage=run.lifecycle_stage,
    )
    return SimpleNamespace(
        info=info, data=SimpleNamespace(tags=dict(run.tags), params=dict(run.params), metrics=latest)
    )
