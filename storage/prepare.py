"""Brings a database up to date, our schema and Optuna's: ``python -m storage.prepare``.

A service's role may change rows alone, so a role that owns the database runs this before the services start. The
address comes from NEUROSWEEP_DATABASE_URL, never from the command line: it holds a password.
"""

from __future__ import annotations

import os
import sys

from neurosweep.errors import NeurosweepError
from storage.database import migrate, open_engine
from storage.optuna_tables import create_tables


def prepare(url: str) -> None:
    """Makes or upgrades every table; harmless where there is nothing to do.

    Raises:
        BadInputError: The address is not one of SQLite or PostgreSQL.
        UnreachableError: The database does not answer.
        NeurosweepError: It belongs to a newer program.
    """
    engine = open_engine(url)
    migrate(engine)
    create_tables(engine.url.render_as_string(hide_password=False))
    engine.dispose()


def main() -> int:
    url = os.environ.get("NEUROSWEEP_DATABASE_URL")
    if not url:
        print("Set NEUROSWEEP_DATABASE_URL to the address of the database.", file=sys.stderr)
        return 2
    try:
        prepare(url)
    except NeurosweepError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
