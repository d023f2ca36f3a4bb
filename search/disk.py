"""Room on the disks that a study writes to."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from neurosweep.errors import DiskFullError

LEAST_BYTES = 64 * 1024**2
"""Below this a study is not begun: its database, its checkpoints and its champion would not fit."""

Answer = TypeVar("Answer")


def existing(folder: Path) -> Path:
    """The folder, or where it is not there yet, the nearest one above it that is."""
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(existing(folder)).free


def check_room(folders: Iterable[Path]) -> None:
    """
    Raises:
        DiskFullError: One of the folders is on a disk that is nearly full.
    """
    for folder in folders:
        free = free_bytes(folder)
        if free < LEAST_BYTES:
            raise DiskFullError(
                f"A study needs at least {LEAST_BYTES / 1024**2:.0f} MB of room, and the disk of {folder} has "
                f"{free / 1024**2:.0f} MB: make room, or name another place with --home or --database."
            )


def writing_to(place: str, write: Callable[[], Answer]) -> Answer:
    """Runs what writes a file.

    Raises:
        DiskFullError: There is no room for it.
    """
    try:
        return write()
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"The disk of {place} is full: make room there, and the study goes on.") from exc
        raise
