"""A study's files: which they are, and how those of an exported study come to their place, all at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from neurosweep.errors import BadInputError, NeurosweepError
from search.archive import Archive, is_file_name, sync_folder

ROOM = 64 << 20
"""Bytes that stay free on the disk."""


def study_folder(home: Path, uid: str) -> Path:
    """Where a study's files are: its best network, checkpoints, plots and champion."""
    return home / "studies" / uid


def files_in(folder: Path) -> dict[str, Path]:
    """A study's files by their names relative to its folder; those in the making are left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tmp")
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if is_file_name(name)}


class Arrival:
    """Unpacks the files of an exported study beside their place, and puts them there. A context manager.

    What an import that was cut off has left is cleared away by the next one of this study.

    Args:
        home: The home folder.
        uid: The study's name among all databases.
        archive: Where the files are.

    Raises:
        BadInputError: A file is damaged, or the place is taken by other files.
        NeurosweepError: They can't be written.
    """

    def __init__(self, home: Path, uid: str, archive: Archive) -> None:
        self._place = study_folder(home, uid)
        self._waiting = self._place.with_name(f".{uid}.import")
        self._archive = archive
        self._placed = False

    def __enter__(self) -> Self:
        self._refuse_others()
        try:
            self._lock = _made_and_locked(self._waiting)
            try:
                self._unpack()
            except BaseException:
                self._clear()
                raise
        except OSError as exc:
            raise _unwritable(exc, self._waiting) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def place(self) -> None:
        """Puts the files in their place; a second time it changes nothing."""
        if self._placed or not self._archive.files or self._place.exists():
            return
        try:
            self._waiting.rename(self._place)
            self._placed = True
            sync_folder(self._place.parent)
        except OSError as exc:
            raise _unwritable(exc, self._place) from exc

    def take_back(self) -> None:
        """Removes what `place` has put there: the study is not in the database after all."""
        if self._placed:
            shutil.rmtree(self._place, ignore_errors=True)

    def _refuse_others(self) -> None:
        """Files that are there already must be the same: of an import that was cut off, or of another database's
        study, whose files are not to be written over."""
        if not self._place.exists():
            return
        there = {name: _sha256(path) for name, path in files_in(self._place).items()}
        if there != self._archive.files:
            raise BadInputError(
                "Other files of this study are there already: does another database use the same home folder? Give "
                "this one a folder of its own with --home, or move those files away.",
                str(self._place),
            )

    def _unpack(self) -> None:
        free, wanted = shutil.disk_usage(self._waiting).free, self._archive.files_size
        if free < wanted + ROOM:
            raise NeurosweepError(
                f"The study's files have {wanted / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free: make room, or give "
                "another --home.",
                str(self._waiting.parent),
            )
        for name in self._archive.files:
            target = self._waiting / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                self._archive.unpack(name, output)
                output.flush()
                os.fsync(output.fileno())
        for folder in (self._waiting, *(path for path in self._waiting.rglob("*") if path.is_dir())):
            sync_folder(folder)

    def _clear(self) -> None:
        if not self._placed:
            shutil.rmtree(self._waiting, ignore_errors=True)
        os.close(self._lock)


def _made_and_locked(folder: Path) -> int:
    """Makes the folder, empty; another process that unpacks into the same one is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other one may have put it in its place between the two lines above.
        if not folder.exists() or not os.path.samestat(folder.stat(), os.fstat(descriptor)):
            raise BlockingIOError
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except BlockingIOError:
        os.close(descriptor)
        raise BadInputError("Another process imports this study at the moment.", str(folder)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(exc: OSError, where: Path) -> NeurosweepError:
    return NeurosweepError(f"The study's files can't be written: {exc.strerror}.", exc.filename or str(where))
