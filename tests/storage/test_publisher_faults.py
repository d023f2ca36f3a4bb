"""The publisher's process and what goes wrong around it: MLflow away, half-answered requests, passwords."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import ViewType

from neurosweep.errors import UnreachableError
from storage.facts import study_key, trial_key
from storage.publisher import Publisher
from storage.publisher_loop import BEHIND, Orders, Turn, reason_of, work
from storage.records import Behind, StudyRecord
from storage.store import Store
from tests import small_study
from tests.mlflow_proxy import Fault, MlflowProxy
from tests.mlflow_server import MlflowServer, free_port


def start_publisher(home: Path, tracking: str) -> subprocess.Popen[str]:
    settings = {
        "NEUROSWEEP_DATABASE_URL": f"sqlite:///{home / 'neurosweep.db'}",
        "MLFLOW_TRACKING_URI": tracking,
        "NEUROSWEEP_HOME": str(home),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "storage.publisher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def keys_in(client: MlflowClient, name: str) -> list[str]:
    experiment = client.get_experiment_by_name(name).experiment_id
    found = client.search_runs([experiment], run_view_type=ViewType.ALL)
    return sorted(run.data.tags["neurosweep.key"] for run in found)


def keys_of(study: StudyRecord) -> list[str]:
    return sorted([study_key(study), *(trial_key(study, number) for number in range(4))])


def reasons(store: Store) -> list[str]:
    with store._engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT reason FROM neurosweep_outbox WHERE reason IS NOT NULL"))
        return [row.reason for row in rows]


def test_the_process_publishes_drains_and_shows_nothing_on_the_screen(
    store: Store, home: Path, fresh_tracking: str
) -> None:
    study = small_study.whole_study(store, "process", winner=None)
    process = start_publisher(home, fresh_tracking)
    out, err = process.communicate("drain\n", timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert store.pending_facts() == 0
    assert keys_in(MlflowClient(fresh_tracking), "process") == keys_of(study)
    assert (home / "logs" / "publisher.log").is_file()


def test_the_process_ends_with_its_stdin_and_leaves_the_rest_to_the_next(
    store: Store, home: Path, fresh_tracking: str
) -> None:
    study = small_study.whole_study(store, "ended", winner=None)
    process = start_publisher(home, fresh_tracking)
    out, err = process.communicate("", timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert store.pending_facts(study.id) > 0
    second = start_publisher(home, fresh_tracking)
    second.communicate(f"drain {study.id}\n", timeout=60)
    assert second.returncode == 0
    assert keys_in(MlflowClient(fresh_tracking), "ended") == keys_of(study)


def test_facts_wait_while_mlflow_is_away_and_arrive_once_when_it_is_back(
    store: Store, home: Path, tmp_path: Path
) -> None:
    study = small_study.whole_study(store, "away", winner=None)
    server = MlflowServer(tmp_path / "server")
    process = start_publisher(home, server.url)
    try:
        until(lambda: bool(reasons(store)))
        assert reasons(store)[0] == f"MLflow does not answer at {server.url}"
        assert store.pending_facts() == 6
        server.start()
        out, _ = process.communicate("drain\n", timeout=60)
        assert (process.returncode, out) == (0, "")
        assert store.pending_facts() == 0
        assert reasons(store) == []
        assert keys_in(MlflowClient(server.url), "away") == keys_of(study)
    finally:
        process.kill()
        server.stop()


def half_answering(server: MlflowServer, loses: Callable[[str, int], bool]) -> MlflowProxy:
    """Some requests go through, but a 503 is the answer."""

    def plan(method: str, path: str, count: int) -> Fault | None:
        return Fault(status=503) if method != "GET" and loses(path, count) else None

    return MlflowProxy(server.port, plan)


def publish_until_done(publisher: Publisher, store: Store) -> None:
    def done() -> bool:
        publisher.publish_due()
        return store.pending_facts() == 0

    until(done)


def test_a_request_that_went_through_but_was_answered_503_makes_one_run(
    store: Store, home: Path, server: MlflowServer
) -> None:
    study = small_study.whole_study(store, "half", winner=None)
    proxy = half_answering(server, lambda path, count: path.endswith("/runs/create") and count in (1, 3))
    publisher = Publisher(store, proxy.url, home)
    publish_until_done(publisher, store)
    assert proxy.struck == ["/api/2.0/mlflow/runs/create"] * 2
    assert keys_in(MlflowClient(server.url), "half") == keys_of(study)
    proxy.close()


def test_each_kind_of_request_may_be_answered_503_once(
    store: Store, home: Path, server: MlflowServer, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.telling.SLOWEST", 0.1)
    name = "flaky"
    study = small_study.whole_study(store, name)
    small_study.write_champion(home / "studies" / study.uid / "champion", network)
    kinds: set[str] = set()

    def first_of_its_kind(path: str, count: int) -> bool:
        kind = re.sub(r"/[^/]*\d[^/]*", "/*", path.removeprefix("/api/2.0/"))  # whatever has a digit is an id
        kinds_before = len(kinds)
        kinds.add(kind)
        return len(kinds) > kinds_before

    proxy = half_answering(server, first_of_its_kind)
    publish_until_done(Publisher(store, proxy.url, home), store)
    assert len(proxy.struck) == len(kinds) >= 12
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(name).experiment_id
    assert keys_in(client, name) == keys_of(study)
    assert [str(version.version) for version in client.search_model_versions(f"name = '{name}'")] == ["1"]
    assert str(client.get_model_version_by_alias(name, "champion").version) == "1"
    assert len(client.search_logged_models([experiment])) == 1
    run = client.search_runs([experiment], "tags.`neurosweep.trial` = '3'")[0]
    points = client.get_metric_history(run.info.run_id, "validation_error")
    assert [point.value for point in points] == [row.validation_metric for row in small_study.epoch_rows(3)]
    proxy.close()


def test_an_address_where_something_else_answers_is_noticed(store: Store, home: Path) -> None:
    class NotMlflow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404, "no such page")

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    other = ThreadingHTTPServer(("127.0.0.1", 0), NotMlflow)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    small_study.whole_study(store, winner=None)
    turn = Publisher(store, f"http://127.0.0.1:{other.server_address[1]}", home).publish_due()
    assert turn.published == 0
    assert turn.reason is not None and "404" in turn.reason
    assert store.pending_facts() == 6
    other.shutdown()


@pytest.mark.parametrize(
    "tracking", ["htp://127.0.0.1:5000", "http://no-such-host.invalid:5000", "postgresql://me@127.0.0.1:1/runs"]
)
def test_a_wrong_address_makes_facts_wait_with_the_reason(store: Store, home: Path, tracking: str) -> None:
    small_study.whole_study(store, winner=None)
    publisher = Publisher(store, tracking, home)
    turn = publisher.publish_due()
    assert (turn.published, bool(turn.reason)) == (0, True)
    assert reasons(store) == [turn.reason]
    assert publisher.publish_due().reason == turn.reason  # it rests, and still knows why


def test_a_password_in_the_address_reaches_neither_log_nor_screen_nor_database(store: Store, home: Path) -> None:
    small_study.whole_study(store, winner=None)
    process = start_publisher(home, f"http://me:hunter2%21@127.0.0.1:{free_port()}")
    until(lambda: bool(reasons(store)))
    out, err = process.communicate("", timeout=30)
    log = (home / "logs" / "publisher.log").read_text()
    assert "MLflow does not answer at http://127.0.0.1" in log
    for text in (log, out, err, *reasons(store)):
        assert "hunter2" not in text


def test_a_drain_gives_up_when_nothing_moves_and_says_how_far_behind(capsys: pytest.CaptureFixture[str]) -> None:
    status = work(
        lambda stopped: Turn(published=0, reason="MLflow does not answer at http://m"),
        lambda study_id: Behind(pending=12, set_aside=0),
        Orders(io.StringIO("drain\n")),
        patience=0.2,
    )
    assert status == BEHIND
    assert capsys.readouterr().out == "12 facts wait for MLflow: MLflow does not answer at http://m\n"


def test_a_drain_that_can_not_count_what_waits_makes_no_number_up(capsys: pytest.CaptureFixture[str]) -> None:
    def behind(study_id: int | None) -> Behind:
        raise UnreachableError("the database does not answer")

    status = work(lambda stopped: Turn(published=0, reason=None), behind, Orders(io.StringIO("drain\n")), patience=0.2)
    assert status == BEHIND
    assert capsys.readouterr().out == "an unknown number of facts wait for MLflow: the database does not answer\n"


def test_no_part_of_a_password_is_left_where_a_long_reason_is_cut() -> None:
    for before in range(270, 310):
        reason = reason_of(ValueError("x" * before + "hunter2hunter2"), "http://me:hunter2hunter2@127.0.0.1:5000")
        assert "hun" not in reason
        assert len(reason) <= 300


def test_a_drain_goes_on_as_long_as_something_moves() -> None:
    left = iter([3, 2, 1, 0])
    asked = []

    def behind(study_id: int | None) -> Behind:
        asked.append(study_id)
        return Behind(pending=next(left), set_aside=0)

    orders = Orders(io.StringIO("drain 5\n"))
    until(orders.drain.is_set)
    assert work(lambda stopped: Turn(published=1, reason=None), behind, orders, patience=0.6) == 0
    assert asked == [5] * 4
