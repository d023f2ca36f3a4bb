"""A SQLite database that is cheap to make anew, whose clock a test sets, and which breaks where a test says so.

The schema is migrated once into a template; a fresh database is a copy of it behind the same engine, so that compiled
statements are kept. The lease clock is the database's: SQLite's ``julianday`` is replaced on every connection.
"""

from __future__ import annotations

import functools
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from storage import optuna_tables
from storage.database import open_engine
from storage.records import NewStudy
from storage.store import Store

EPOCH_AS_JULIAN_DAY = 2440587.5


class FakeDatabase:
    """
    Args:
        folder: Where its files go.
        monkeypatch: Lets Optuna's reader be made once instead of for each read.

    Attributes:
        seconds: The database's clock, in seconds since 1970.
        on_statement: Called before each statement of the product with its text; may raise.
        on_commit: Called in place of each commit of the product, with the commit.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: Callable[[], float] = lambda: 0.0
        self.on_statement: Callable[[str], None] = lambda statement: None
        self.on_commit: Callable[[Callable[[], None]], None] = lambda commit: commit()
        self._template, self.file = folder / "template.db", folder / "neurosweep.db"
        template = Store.open(f"sqlite:///{self._template}")
        template.optuna_trials(
            template.submit(NewStudy(name="template", spec={}, text="", trials=1)).id
        )  # makes Optuna's tables
        with template._engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM neurosweep_study")
        template.close()
        monkeypatch.setattr(optuna_tables, "_storage", functools.cache(optuna_tables._storage))
        self.engine = open_engine(f"sqlite:///{self.file}")
        sa.event.listen(self.engine, "connect", self._prepare)
        self._hook()
        self._reader: sqlite3.Connection | None = None

    def fresh(self) -> None:
        """An empty database in place of what was there."""
        self.close()
        self.on_statement, self.on_commit = lambda statement: None, lambda commit: commit()
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._template, self.file)
        self._reader = sqlite3.connect(self.file, isolation_level=None)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self.engine.dispose()

    def now(self) -> float:
        """Its clock as the product's statements see it, to the last bit."""
        return (self._julian_day() - EPOCH_AS_JULIAN_DAY) * 86400.0

    def store(self) -> Store:
        """As another process would open it."""
        return Store(self.engine)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the tables hold, read past the product."""
        assert self._reader is not None
        return self._reader.execute(query).fetchall()

    def _prepare(self, connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("julianday", 1, lambda when: self._julian_day())

    def _julian_day(self) -> float:
        return self.seconds() / 86400.0 + EPOCH_AS_JULIAN_DAY

    def _hook(self) -> None:
        dialect: Any = self.engine.dialect
        execute, execute_many, commit = dialect.do_execute, dialect.do_executemany, dialect.do_commit

        def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            self.on_statement(statement)
            execute(cursor, statement, parameters, context)

        def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            self.on_statement(statement)
            execute_many(cursor, statement, parameters, context)

        def do_commit(connection: Any) -> None:
            self.on_commit(lambda: commit(connection))

        dialect.do_execute, dialect.do_executemany, dialect.do_commit = do_execute, do_executemany, do_commit
