"""One database: its engine, its settings, its schema, and its errors in words."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError
from tenacity import (
    RetryCallState,
    retry,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from neurosweep.errors import BadInputError, DiskFullError, NeurosweepError, UnreachableError
from storage.secrecy import hide, secrets_in

VERSION_TABLE = "neurosweep_version"
HEAD = "0004"
"""The newest migration in ``storage/migrations/versions``; a test holds it to Alembic's own answer."""

MIGRATION_LOCK = 0x6E65_7572_6F73
"""Key of PostgreSQL's advisory lock around migrations."""

POSTGRES_OPTIONS = "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=15s"

POSTGRES_NETWORK = {
    "connect_timeout": 10,
    # A network that has gone away without a word is noticed within 15 seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""How long the driver waits; an address may say otherwise."""

FURTHEST_AHEAD = 300.0
"""Seconds: no lease, and no wait for a next try, is longer."""

SQLITE_BUSY_SECONDS = 5

RETRY_SECONDS = 15.0
"""No transaction is begun again later than this after its first try: whoever waits longer does so by itself."""

LITTLE_ROOM = 1 << 20
"""Bytes: an I/O error of SQLite's on a disk with less room than this is for want of it."""

_PASSING_STATES = frozenset(
    {
        "40001",  # could not be serialized
        "40P01",  # deadlock
        "55P03",  # lock timeout
        "57P01",  # ended by the administrator
        "57P02",  # ended by another process's crash
        "57P03",  # starting or stopping
        "53300",  # too many connections
    }
)
_DISK_FULL = "53100"
_READ_ONLY = "25006"


def open_engine(url: str) -> sa.Engine:
    """An engine for SQLite (in WAL mode, its folder made) or PostgreSQL (through psycopg 3).

    Raises:
        BadInputError: The address is of neither.
        UnreachableError: The folder for SQLite's file can't be made.
    """
    address = _address(url)
    if address.get_backend_name() == "sqlite":
        _make_folder(address.database)
        engine = sa.create_engine(address, connect_args={"timeout": SQLITE_BUSY_SECONDS})
        sa.event.listen(engine, "connect", _set_pragmas)
        sa.event.listen(engine, "begin", _begin_immediately)
        return engine
    settings = {"options": f"{address.query.get('options', '')} {POSTGRES_OPTIONS}".strip()}
    if isinstance(address.query.get("host"), tuple):  # one of them takes writes, and which one may change
        settings["target_session_attrs"] = str(address.query.get("target_session_attrs", "read-write"))
    network = {name: value for name, value in POSTGRES_NETWORK.items() if name not in address.query}
    engine = sa.create_engine(address.update_query_dict(settings), pool_pre_ping=True, connect_args=network)
    sa.event.listen(engine, "handle_error", _leave_a_replica)
    return engine


def _leave_a_replica(context: sa.engine.ExceptionContext) -> None:
    """After a failover every connection may be to a server that takes no more writes: all are opened anew."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True  # and so the pool's other connections go too


def _address(url: str) -> sa.URL:
    try:
        address = sa.make_url(url)
    except (SQLAlchemyError, ValueError):
        # ValueError: the port is no number, as where a password has an unquoted slash. Either message would repeat the
        # address, password and all.
        raise BadInputError(
            "A database address must look like sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.",
            "--database",
        ) from None
    if address.drivername in ("postgres", "postgresql"):
        return address.set(drivername="postgresql+psycopg")
    if address.drivername in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        return address
    raise BadInputError(
        f"The database must be SQLite or PostgreSQL, but the address begins with {address.drivername!r}.", "--database"
    )


def _make_folder(file: str | None) -> None:
    if not file or file == ":memory:":
        raise BadInputError(
            "A database in memory ends with its process: give SQLite a file, as in sqlite:///FILE.", "--database"
        )
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UnreachableError(
            f"The folder of the database {file} can't be made: {exc.strerror}", "--database"
        ) from exc


def _set_pragmas(connection: sqlite3.Connection, _: object) -> None:
    # The driver must not begin transactions by itself: `_begin_immediately` does, and takes the write lock at once.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediately(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail at once, not wait, when another one writes between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")


def now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Seconds since 1970 on the database's clock, as an SQL expression."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double())
    return sa.cast(sa.literal_column("extract(epoch from clock_timestamp())"), sa.Double())


def to_come(moment: sa.ColumnElement[float], clock: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Whether a lease's end, or the time of a next try, has not come yet.

    What lies further ahead than anybody puts it was written by a clock that has been set back since: with SQLite it is
    the machine's. It counts as past, or nobody would take the study for as long.
    """
    return sa.and_(moment > clock, moment <= clock + FURTHEST_AHEAD)


def migrate(engine: sa.Engine) -> None:
    """Brings the schema up to date; one process does it, the others wait and find it done.

    Raises:
        NeurosweepError: The database is of a newer program.
        UnreachableError: It does not answer.
    """
    with translated(engine):
        _migrate(engine)


# SQLite does not wait for a lock when it turns to WAL: two first starts at once can meet there.
@retry(
    retry=retry_if_exception(lambda exc: _passes_by(exc)),
    stop=stop_after_attempt(6),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)
def _migrate(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        _upgrade(connection)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - ours
    return version


def schema_version(url: str) -> str | None:
    """Which migration a database was last brought to; None for a new one.

    Raises:
        BadInputError: The address is not one of SQLite or PostgreSQL.
        UnreachableError: It does not answer.
    """
    engine = open_engine(url)
    try:
        with translated(engine), engine.connect().execution_options(writes=False) as connection:
            return _version(connection)
    finally:
        engine.dispose()


def _upgrade(connection: sa.Connection) -> None:
    # Alembic takes 0.3 s to import: only here, where there is something to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    version = _version(connection)
    if version is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(version)
        except CommandError as exc:
            raise NeurosweepError(
                f"This database is of a newer neurosweep (its schema is {version}, this program knows up to {HEAD}): "
                "upgrade the program.",
                "--database",
            ) from exc
    command.upgrade(config, "head")


@contextlib.contextmanager
def translated(engine: sa.Engine) -> Iterator[None]:
    """Turns a driver's errors into ours; the text never holds a password."""
    try:
        yield
    except DBAPIError as exc:
        raise _in_words(exc, engine) from exc


def _in_words(exc: DBAPIError, engine: sa.Engine) -> NeurosweepError:
    if _is_disk_full(exc, engine):
        return DiskFullError(
            f"The disk of the database {place(engine)} is full: make room there; all that was recorded so far is kept.",
            "--database",
        )
    if _is_locked(exc):
        return UnreachableError(
            f"The database {place(engine)} can't be used: another process has held its write lock for "
            f"{RETRY_SECONDS:.0f} seconds. End what writes to the file.",
            "--database",
        )
    reason = _reason(exc, engine)
    if isinstance(exc, OperationalError | InterfaceError) or _passes_by(exc):
        return UnreachableError(f"The database {place(engine)} can't be used: {reason}", "--database")
    # Without a statement it was the connecting that failed: an option in the address that the driver lacks.
    kind = BadInputError if isinstance(exc, ProgrammingError) and exc.statement is None else NeurosweepError
    return kind(f"The database {place(engine)} refused: {reason}", "--database")


def place(engine: sa.Engine) -> str:
    """Which database this is, without user, password or query."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hosts = url.host or url.query.get("host", "localhost")
    return f"{hosts if isinstance(hosts, str) else ','.join(hosts)}/{url.database}"


def _reason(exc: DBAPIError, engine: sa.Engine) -> str:
    lines = [line.strip() for line in str(exc.orig).splitlines() if line.strip()]
    reason = lines[0] if lines else type(exc.orig).__name__
    return hide(reason, secrets_in(engine.url.render_as_string(hide_password=False)))


def _is_disk_full(exc: DBAPIError, engine: sa.Engine) -> bool:
    if _is_io_error(exc):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(Path(str(engine.url.database)).parent).free < LITTLE_ROOM
    return _says_full(exc)


def _says_full(exc: DBAPIError) -> bool:
    return (
        getattr(exc.orig, "sqlstate", None) == _DISK_FULL
        or getattr(exc.orig, "sqlite_errorname", None) == "SQLITE_FULL"
    )


def _is_io_error(exc: DBAPIError) -> bool:
    return str(getattr(exc.orig, "sqlite_errorname", "")).startswith("SQLITE_IOERR")


def _is_locked(exc: DBAPIError) -> bool:
    return "database is locked" in str(exc.orig)


def _passes_by(exc: BaseException) -> bool:
    """Whether the same transaction may well succeed a moment later."""
    if not isinstance(exc, DBAPIError):
        return False
    state: Any = getattr(exc.orig, "sqlstate", None) or ""
    return bool(
        exc.connection_invalidated
        or state in _PASSING_STATES
        or state.startswith("08")  # the connection failed
        or "the database system is " in str(exc.orig)  # starting up, shutting down: no state comes with a refusal
        or _is_locked(exc)
    )


def _may_pass(exc: BaseException) -> bool:
    """Likewise, in a store that was open: a server that does not answer may be starting again."""
    if _passes_by(exc):
        return True
    # Nor has a COMMIT a statement.
    return isinstance(exc, OperationalError) and exc.statement is None and not (_says_full(exc) or _is_io_error(exc))


def _out_of_time(tries: RetryCallState) -> bool:
    return stop_before_delay(RETRY_SECONDS)(tries)


transaction_retry = retry(
    retry=retry_if_exception(_may_pass),
    stop=_out_of_time,
    wait=wait_random_exponential(multiplier=0.2, max=3),
    reraise=True,
)
"""Runs a whole transaction again after a lost connection or a lock; it must be harmless when it has gone through."""
