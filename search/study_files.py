"""A study's files: which they are, and how those of an exported study come to their place, all at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from neurosweep.errors import BadInputError, NeurosweepError
from search.archive import Archive, is_file_name, sync_folder
from search.disk import free_bytes
from search.places import Places
from search.whole_files import SCRATCH, Files, open_files

ROOM = 64 << 20
"""Bytes that stay free on the disk."""


CHECKPOINTS = "checkpoints/"


def study_files(places: Places, uid: str) -> dict[str, Callable[[], IO[bytes]]]:
    """All files of a study, its checkpoints wherever they are kept: for each name a way to open it."""
    found: dict[str, Callable[[], IO[bytes]]] = {
        name: partial(_opened_here, path) for name, path in files_in(places.folder_of(uid)).items()
    }
    if places.checkpoints is not None:
        found = {name: opened for name, opened in found.items() if not name.startswith(CHECKPOINTS)}
        store = open_files(places.checkpoints_of(uid))
        found |= {CHECKPOINTS + name: partial(_opened, store, name) for name in _names(store)}
    return found


def _opened_here(path: Path) -> IO[bytes]:
    return path.open("rb")


def _opened(store: Files, name: str) -> IO[bytes]:
    return io.BytesIO(store.read(name))


def _names(store: Files) -> list[str]:
    return sorted(name for name in store.names("") if not name.endswith(SCRATCH) and is_file_name(name))


def files_in(folder: Path) -> dict[str, Path]:
    """A study's files by their names relative to its folder; those in the making are left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != SCRATCH)
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if is_file_name(name)}


class Arrival:
    """Unpacks the files of an exported study beside their place, and puts them there. A context manager.

    What an import that was cut off has left is cleared away by the next one of this study.

    Args:
        places: Where files belong here.
        uid: The study's name among all databases.
        archive: Where the files are.

    Raises:
        BadInputError: A file is damaged, or the place is taken by other files.
        NeurosweepError: They can't be written.
    """

    def __init__(self, places: Places, uid: str, archive: Archive) -> None:
        self._place = places.folder_of(uid)
        self._waiting = self._place.with_name(f".{uid}.import")
        self._archive = archive
        self._placed = False
        self._store = None if places.checkpoints is None else open_files(places.checkpoints_of(uid))
        """The checkpoints' own place, where they are not among the other files."""
        apart = CHECKPOINTS if self._store else None
        self._here = {name: total for name, total in archive.files.items() if not apart or not name.startswith(apart)}
        self._apart = {name: total for name, total in archive.files.items() if name not in self._here}

    def __enter__(self) -> Self:
        self._refuse_others()
        try:
            self._lock = _made_and_locked(self._waiting)
            try:
                self._unpack()
                # Before the transaction, which a slow store must not keep open.
                self._unpack_apart()
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
        if self._placed or not self._here or self._place.exists():
            return
        try:
            self._waiting.rename(self._place)
            self._placed = True
            sync_folder(self._place.parent)
        except OSError as exc:
            raise _unwritable(exc, self._place) from exc

    def take_back(self) -> None:
        """Removes all files again: the study is not in the database after all."""
        if self._placed:
            shutil.rmtree(self._place, ignore_errors=True)
        if self._store:
            with contextlib.suppress(OSError):
                self._store.remove(name.removeprefix(CHECKPOINTS) for name in self._apart)

    def _refuse_others(self) -> None:
        """Files that are there already must be the same: of an import that was cut off, or of another database's
        study, whose files are not to be written over."""
        if self._place.exists():
            there = {name: _sha256(path) for name, path in files_in(self._place).items()}
            if there != self._here:
                raise _taken("home folder", "--home", str(self._place))
        if self._store:
            try:
                kept = {
                    CHECKPOINTS + name: hashlib.sha256(self._store.read(name)).hexdigest()
                    for name in _names(self._store)
                }
            except OSError as exc:
                raise _unwritable(exc, Path("checkpoints")) from exc
            if not kept.items() <= self._apart.items():
                raise _taken("place for checkpoints", "--checkpoints", None)

    def _unpack(self) -> None:
        free, wanted = free_bytes(self._waiting), self._archive.files_size
        if free < wanted + ROOM:
            raise NeurosweepError(
                f"The study's files have {wanted / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free: make room, or give "
                "another --home.",
                str(self._waiting.parent),
            )
        for name in self._here:
            target = self._waiting / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                self._archive.unpack(name, output)
                output.flush()
                os.fsync(output.fileno())
        for folder in (self._waiting, *(path for path in self._waiting.rglob("*") if path.is_dir())):
            sync_folder(folder)

    def _unpack_apart(self) -> None:
        if self._store is None:
            return
        for name in self._apart:
            content = io.BytesIO()
            self._archive.unpack(name, content)
            self._store.write(name.removeprefix(CHECKPOINTS), content.getvalue())

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


def _taken(what: str, option: str, where: str | None) -> BadInputError:
    return BadInputError(
        f"Other files of this study are there already: does another database use the same {what}? Give this one "
        f"another with {option}, or move those files away.",
        where,
    )


def _unwritable(exc: OSError, where: Path) -> NeurosweepError:
    return NeurosweepError(f"The study's files can't be written: {exc.strerror}.", exc.filename or str(where))
