"""How Alembic runs our migrations: on the connection that `storage.database` hands over, under its lock."""

from __future__ import annotations

from alembic import context

from storage.database import VERSION_TABLE
from storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can't alter a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
