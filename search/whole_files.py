"""Files that are written whole or not at all, in a folder of this machine or at any address that fsspec knows.

Whatever goes wrong with a store, full disks and lost connections among it, is an OSError.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from neurosweep.errors import BadInputError
from neurosweep.failpoints import reach
from storage.secrecy import hide, public_address, secrets_in

SCRATCH = ".tmp"
"""How the names of files end that are being written, or were when their process died."""


class Files(Protocol):
    """Files by name, such as ``trials/7/4.safetensors``. Nothing is kept in memory: others write here as well."""

    def write(self, name: str, data: bytes) -> None:
        """Makes or replaces a file; whoever reads it meanwhile finds the old one, or the new one.

        Raises:
            OSError: It could not be written, and nothing of it is left.
        """

    def read(self, name: str) -> bytes:
        """
        Raises:
            FileNotFoundError: There is none.
            OSError: It can't be read.
        """

    def names(self, folder: str) -> list[str]:
        """Of all files below the folder, in no order; none where there is no such folder."""

    def remove(self, names: Iterable[str]) -> None:
        """Those that are not there are passed over."""

    def remove_folders(self, folders: Iterable[str]) -> None:
        """With all that is in them; those that are not there are passed over."""


def open_files(address: str) -> Files:
    """
    Args:
        address: A folder's path, or an address with a protocol, such as ``s3://bucket/folder``.

    Raises:
        BadInputError: Nothing is known of such a protocol, its package is missing, or the address is a pattern.
    """
    if "://" not in address:
        return LocalFiles(Path(address))
    import fsspec  # where it is needed: most studies keep their files in a folder
    from fsspec.core import has_magic
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, root = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise BadInputError(
            f"checkpoints need a folder or an address of fsspec's whose package is installed, not "
            f"{public_address(address)!r}: {hide(str(error), secrets_in(address))}"
        ) from None
    if isinstance(system, LocalFileSystem):
        return LocalFiles(Path(root))
    if has_magic(root):
        # fsspec would remove all files that it stands for.
        raise BadInputError(
            f"checkpoints need an address without *, ? and [, which stand for many, not {public_address(address)!r}"
        )
    return RemoteFiles(system, root)


class LocalFiles:
    """In a folder, which is made when something is written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(_scratch(path.name))
        try:
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                # Without it a power cut may leave the new name with no content. The folder itself is not synced: where
                # the cut takes the new name, the file before it is still there.
                os.fsync(file.fileno())
            reach("file_before_rename")
            scratch.replace(path)
        except BaseException:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        found = os.walk(self._root / folder)
        return [(Path(place) / file).relative_to(self._root).as_posix() for place, _, files in found for file in files]

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def remove_folders(self, folders: Iterable[str]) -> None:
        for folder in folders:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._root / folder)


class RemoteFiles:
    """At an address of fsspec's.

    fsspec has no one way to write a file whole: its transactions put files in place one after the other, and not every
    store takes part. But a store either has a rename of its own (SFTP, SMB, HDFS: file systems on another machine),
    and then a file is written under another name and renamed; or fsspec moves files there by copying and deleting
    (S3, Google's, Azure's), and then it is an object store, in which a single put shows the whole object or nothing,
    and a move would be three requests that are no safer.

    Args:
        system: An `fsspec.AbstractFileSystem`.
        root: The folder's path in it.
    """

    def __init__(self, system: Any, root: str) -> None:
        from fsspec import AbstractFileSystem

        self._system, self._root = system, root.rstrip("/")
        self._renames = type(system).mv is not AbstractFileSystem.mv

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with _os_errors():
            if not self._renames:
                self._system.pipe_file(path, data)
                return
            scratch = _scratch(path)
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                self._system.pipe_file(scratch, data)
                self._system.mv(scratch, path)
            except BaseException:
                with suppress(Exception):
                    self._system.rm_file(scratch)
                raise

    def read(self, name: str) -> bytes:
        with _os_errors():
            return bytes(self._system.cat_file(self._path(name)))

    def names(self, folder: str) -> list[str]:
        with _os_errors():
            self._system.invalidate_cache()  # it remembers listings, and others write here as well
            try:
                found = self._system.find(self._path(folder))
            except FileNotFoundError:
                return []
        return [path.removeprefix(f"{self._root}/") for path in found]

    def remove(self, names: Iterable[str]) -> None:
        paths = [self._path(name) for name in names]
        if not paths:
            return
        with _os_errors():
            try:
                self._system.rm(paths)  # an object store takes many in one request
            except FileNotFoundError:  # one is not there, and some of the others may still be
                for path in paths:
                    with suppress(FileNotFoundError):
                        self._system.rm_file(path)

    def remove_folders(self, folders: Iterable[str]) -> None:
        if self._renames:
            for folder in folders:
                with _os_errors(), suppress(FileNotFoundError):
                    self._system.rm(self._path(folder), recursive=True)
            return
        # In an object store folders are but the beginnings of names: one listing finds the files of all.
        wanted = {PurePosixPath(folder) for folder in folders}
        listed = self.names(posixpath.commonpath(wanted)) if wanted else []
        self.remove(name for name in listed if not wanted.isdisjoint(PurePosixPath(name).parents))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _scratch(name: str) -> str:
    """Another one for each writing: two processes may write the same file."""
    return f"{name}.{uuid.uuid4().hex}{SCRATCH}"


@contextmanager
def _os_errors() -> Iterator[None]:
    """A store's library has errors of its own, which a caller can't know."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"the store of checkpoints failed: {type(error).__name__}: {error}") from error
