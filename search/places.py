"""Where things are: the database, MLflow, Ray and the home folder. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Places:
    """The addresses that a command works with.

    Attributes:
        home: Folder for the default databases, checkpoints and champions.
        database: SQLAlchemy address of the studies; may hold a password, so it is never printed.
        tracking: MLflow's tracking address; may hold a password, so it is never printed.
        ray: Address of a Ray cluster; None for a Ray of our own on this machine.
    """

    home: Path
    database: str
    tracking: str
    ray: str | None
