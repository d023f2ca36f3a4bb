"""MLflow fails in every way that it can, and ends up holding exactly what the database holds."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric

from storage import telling
from storage.facts import study_key, trial_key
from storage.projection import KEY, STUDY_UID
from storage.publisher import Publisher
from storage.records import StudyRecord
from storage.store import Store
from tests import small_study
from tests.faults.mlflow_compare import compare_mlflow
from tests.mlflow_proxy import Fault, MlflowProxy, Plan
from tests.mlflow_server import MlflowServer, mlflow_server

names = (f"study-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real server for the module, running at each test's begin; its start takes longer than all else here."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("network") / "network.pt2"
    small_study.export_network(file, inputs=4, outputs=2)
    return file


@pytest.fixture
def proxied(server: MlflowServer) -> Iterator[Callable[[Plan], MlflowProxy]]:
    """A proxy before the server, for a plan."""
    made: list[MlflowProxy] = []

    def make(plan: Plan) -> MlflowProxy:
        made.append(MlflowProxy(server.port, plan))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


Proxied = Callable[[Plan], MlflowProxy]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are short; nothing else is."""
    monkeypatch.setattr(telling, "SLOWEST", 0.2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    """For what takes long and has little to do with the kind of database."""
    store = Store.open(sqlite_url)
    yield store
    store.close()


def publish_all(publisher: Publisher, store: Store, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while store.pending_facts():
        publisher.publish_due()
        assert time.monotonic() < end, store.behind()
        time.sleep(0.02)


def whole_study(store: Store, home: Path, network: Path) -> StudyRecord:
    """A study that has ended, with its champion's files."""
    study = small_study.whole_study(store, next(names))
    small_study.write_champion(home / "studies" / study.uid / "champion", network)
    return study


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


def test_an_mlflow_that_is_down_for_a_while_gets_everything_once_and_holds_nothing_up(
    sqlite_store: Store, home: Path, server: MlflowServer
) -> None:
    store = sqlite_store
    publisher = Publisher(store, server.url, home)
    claim = small_study.start(store, small_study.submit(store, next(names)))
    small_study.end_trial(store, claim, 0)
    publish_all(publisher, store)
    server.stop()
    try:
        for number in range(1, 4):
            began = time.monotonic()
            small_study.end_trial(store, claim, number)
            assert time.monotonic() - began < 1  # the dispatcher does not notice
            publisher.publish_due()
        behind = store.behind(claim.study.id)
        assert (behind.pending, behind.set_aside) == (3, 0)
        assert behind.oldest_reason == f"MLflow does not answer at {server.url}"
        small_study.finish(store, claim, winner=None)
    finally:
        server.start()
    publish_all(publisher, store)
    assert compare_mlflow(store, MlflowClient(server.url), claim.study) == []


def test_an_mlflow_that_is_slower_than_the_lease_keeps_its_publisher(
    store: Store, home: Path, server: MlflowServer, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "LEASE", 0.6)
    monkeypatch.setattr(telling, "RENEW", 0.1)
    study = small_study.whole_study(store, next(names), winner=None)
    others: list[bool] = []

    def look() -> None:
        others.append(store.claim_outbox("another", 30.0) is not None)

    proxy = proxied(lambda method, path, count: Fault(after=0.5, then=look))
    publish_all(Publisher(store, proxy.url, home), store)
    assert len(others) > 10
    assert not any(others)
    assert compare_mlflow(store, MlflowClient(server.url), study) == []


def test_answers_that_come_after_the_client_has_given_up_double_nothing(
    store: Store, home: Path, network: Path, server: MlflowServer, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    study = whole_study(store, home, network)
    every_fifth = itertools.count(1)

    def late(method: str, path: str, count: int) -> Fault | None:
        return Fault(after=2.0) if next(every_fifth) % 5 == 0 else None

    proxy = proxied(late)
    publish_all(Publisher(store, proxy.url, home), store)
    assert len(proxy.struck) >= 5
    assert compare_mlflow(store, MlflowClient(server.url), study) == []


def test_a_run_that_is_made_after_the_client_has_given_up_is_removed(
    store: Store, home: Path, network: Path, server: MlflowServer, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    name, arrived = next(names), list[str]()
    claim = small_study.start(store, small_study.submit(store, name))

    def late(method: str, path: str, count: int) -> Fault | None:
        late_one = path.endswith("/runs/create") and count == 2
        return Fault(before=2.5, then=lambda: arrived.append(path)) if late_one else None

    publisher = Publisher(store, proxied(late).url, home)
    small_study.end_trial(store, claim, 0)
    publish_all(publisher, store)
    end = time.monotonic() + 30
    while not arrived:
        assert time.monotonic() < end
        time.sleep(0.05)
    client = MlflowClient(server.url)
    assert f"{trial_key(claim.study, 0)} is there 2 times" in compare_mlflow(store, client, claim.study)
    small_study.finish(store, claim, winner=None)
    publish_all(publisher, store)
    differences = compare_mlflow(store, client, claim.study)
    assert differences == []


def test_an_mlflow_that_answers_500_to_one_call_in_three_gets_everything_once(
    store: Store, home: Path, network: Path, server: MlflowServer, proxied: Proxied
) -> None:
    study = whole_study(store, home, network)
    calls = itertools.count(1)

    def broken(method: str, path: str, count: int) -> Fault | None:
        call = next(calls)
        # Every other one of them has gone through before it was answered so.
        return Fault(status=500, passed_on=call % 2 == 0) if call % 3 == 0 else None

    proxy = proxied(broken)
    publish_all(Publisher(store, proxy.url, home), store)
    assert len(proxy.struck) >= 10
    assert store.behind().set_aside == 0
    assert compare_mlflow(store, MlflowClient(server.url), study) == []


def test_an_mlflow_that_is_killed_with_a_batch_stored_and_not_answered_holds_it_once(
    sqlite_store: Store, home: Path, server: MlflowServer, proxied: Proxied
) -> None:
    store = sqlite_store
    study = small_study.whole_study(store, next(names), winner=None)

    def kill() -> None:
        assert server._process is not None
        os.killpg(server._process.pid, signal.SIGKILL)
        server.stop()

    def stored(method: str, path: str, count: int) -> Fault | None:
        return Fault(then=kill, cut=True) if path.endswith("/runs/log-batch") and count == 3 else None

    proxy = proxied(stored)
    publisher = Publisher(store, proxy.url, home)
    try:
        publisher.publish_due()
        assert len(proxy.struck) == 1
        assert store.behind().oldest_reason == f"MLflow does not answer at {proxy.url}"
    finally:
        server.start()
    publish_all(publisher, store)
    assert compare_mlflow(store, MlflowClient(server.url), study) == []


def test_a_server_whose_database_was_deleted_goes_on_and_a_sync_brings_everything_back(
    sqlite_store: Store, home: Path, server: MlflowServer
) -> None:
    store = sqlite_store
    publisher = Publisher(store, server.url, home)
    lost, other = (small_study.start(store, small_study.submit(store, next(names))) for _ in range(2))
    small_study.end_trial(store, lost, 0)
    publish_all(publisher, store)
    server.stop()
    for file in server.folder.glob("mlflow.db*"):
        file.unlink()
    server.start()
    client = MlflowClient(server.url)
    run = store.mlflow_run(lost.study.id)
    assert run is not None
    while client.create_experiment(next(names)) != run.experiment_id:  # the number now belongs to something else
        pass
    small_study.end_trial(store, other, 0)
    publish_all(publisher, store)
    small_study.end_trial(store, lost, 1)
    small_study.finish(store, lost, winner=None)
    publish_all(publisher, store)
    assert compare_mlflow(store, client, lost.study) == [f"{trial_key(lost.study, 0)} is missing"]
    assert store.tell_again(lost.study.id) == 4
    publish_all(publisher, store)
    assert compare_mlflow(store, client, lost.study) == []
    assert compare_mlflow(store, client, other.study) == []
    run = store.mlflow_run(lost.study.id)
    assert run is not None
    assert client.get_run(run.run_id).data.tags[KEY] == study_key(lost.study)


def test_an_mlflow_file_that_was_deleted_is_made_again_and_a_sync_fills_it(
    sqlite_url: str, home: Path, tmp_path: Path
) -> None:
    store, file = Store.open(sqlite_url), tmp_path / "mlflow" / "mlflow.db"
    address = f"sqlite:///{file}"
    publisher = Publisher(store, address, home)
    claim = small_study.start(store, small_study.submit(store, "file"))
    small_study.end_trial(store, claim, 0)
    publish_all(publisher, store)
    for each in file.parent.glob("mlflow.db*"):
        each.unlink()
    small_study.end_trial(store, claim, 1)
    small_study.finish(store, claim, winner=None)
    publish_all(publisher, store)
    store.tell_again(claim.study.id)
    publish_all(publisher, store)
    # The address under which this process has opened the file that is gone would still show that one.
    client = MlflowClient(f"sqlite:///{file.parent}/././{file.name}")
    assert compare_mlflow(store, client, claim.study) == []


def test_a_fact_that_mlflow_refuses_is_set_aside_and_all_else_arrives(
    store: Store, home: Path, network: Path, server: MlflowServer
) -> None:
    study = whole_study(store, home, network)
    client = MlflowClient(server.url)
    experiment = client.create_experiment(study.name)
    poisoned = client.create_run(experiment, tags={KEY: trial_key(study, 1), STUDY_UID: study.uid})
    client.log_param(poisoned.info.run_id, "layers", "99")  # MLflow lets nobody change a parameter
    publisher = Publisher(store, server.url, home)
    end = time.monotonic() + 60
    while store.behind().pending:
        publisher.publish_due()
        assert time.monotonic() < end, store.behind()
        time.sleep(0.02)
    behind = store.behind(study.id)
    assert behind.set_aside == 1
    assert "layers" in str(behind.set_aside_reason)
    assert all(line.startswith(trial_key(study, 1)) for line in compare_mlflow(store, client, study))
    client.set_tag(poisoned.info.run_id, KEY, "somebody-elses")
    client.set_tag(poisoned.info.run_id, STUDY_UID, "somebody-elses")
    store.tell_again(study.id)
    publish_all(publisher, store)
    assert compare_mlflow(store, client, study) == []


@pytest.mark.parametrize("place", ["after_create_run", "registering_model", "before_acknowledge"])
def test_a_publisher_that_is_killed_leaves_nothing_that_the_next_one_does_not_complete(
    sqlite_url: str, home: Path, network: Path, server: MlflowServer, place: str
) -> None:
    store = Store.open(sqlite_url)
    study = whole_study(store, home, network)
    settings = {
        "NEUROSWEEP_DATABASE_URL": sqlite_url,
        "MLFLOW_TRACKING_URI": server.url,
        "NEUROSWEEP_HOME": str(home),
    }
    ended = []
    for failpoints in (f"{place}=kill", ""):
        process = subprocess.run(
            [sys.executable, "-m", "storage.publisher"],
            input="drain\n",
            text=True,
            capture_output=True,
            env={**os.environ, **settings, "NEUROSWEEP_FAILPOINTS": failpoints},
            timeout=120,
        )
        ended.append(process.returncode)
    assert ended == [-signal.SIGKILL, 0]
    assert compare_mlflow(store, MlflowClient(server.url), study) == []
