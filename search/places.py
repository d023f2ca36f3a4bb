"""Where things are: the database, MLflow, Ray and the home folder. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Places:
    """The addresses that a command works with.

    Attributes:
        home: Folder for the default databases and champions.
        database: SQLAlchemy address of the studies; may hold a password, so it is never printed.
        tracking: MLflow's tracking address; may hold a password, so it is never printed.
        ray: Address of a Ray cluster; None for a Ray of our own on this machine.
        checkpoints: Folder or fsspec address (``s3://...``) of all studies' checkpoints, which every machine of a
            cluster reaches; None for the home folder.
    """

    home: Path
    database: str
    tracking: str
    ray: str | None
    checkpoints: str | None = None

    def folder_of(self, uid: str) -> Path:
        """The folder of a study: its champion, its plots."""
        return self.home / "studies" / uid

    def page_of(self, uid: str, name: str) -> Path:
        """A page of a study that explains, once it has been written."""
        return self.folder_of(uid) / "pages" / f"{name}.html"

    def checkpoints_of(self, uid: str) -> str:
        """The address of a study's checkpoints."""
        if self.checkpoints is None:
            return str(self.folder_of(uid) / "checkpoints")
        return f"{self.checkpoints.rstrip('/')}/{uid}"

    def written_folders(self) -> list[Path]:
        """Folders on this machine that a study writes to."""
        scheme, _, file = self.database.partition("://")
        database = [Path(file[1:]).parent] if scheme.startswith("sqlite") and len(file) > 1 else []
        here = [Path(self.checkpoints)] if self.checkpoints is not None and "://" not in self.checkpoints else []
        return [self.home, *database, *here]
