"""Inserts that are harmless when they are done again, in both databases' dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[dict[str, Any]]


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_absent(connection: sa.Connection, table: sa.Table, rows: Rows, key: Sequence[str]) -> None:
    """Inserts the rows whose `key` columns are not there yet."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(index_elements=key), rows)


def insert_or_update(
    connection: sa.Connection, table: sa.Table, rows: Rows, key: Sequence[str], changed: Sequence[str]
) -> None:
    """Inserts rows; those whose `key` columns are there get the `changed` columns."""
    if rows:
        statement = _insert(connection, table)
        values = {name: statement.excluded[name] for name in changed}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values), rows)
