"""The file that an exported study travels in: one zip, with a manifest that has a checksum for each member.

Tables are packed, the study's files are stored as they are. Writing leaves the whole file or none; reading refuses
whatever is not exactly what the manifest says, before anything of it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurosweep.errors import BadInputError, NeurosweepError
from neurosweep.failpoints import reach

MANIFEST = "manifest.json"
TABLES = ("study.json", "trials.jsonl", "epochs.jsonl", "optuna.jsonl")
FILES = "files/"

MOST_UNPACKED = 64 << 30
"""Bytes that all members may have together: ten times a study of 50,000 trials with large networks."""

MOST_TABLES = 8 << 30
"""Bytes that the tables may have, which a small file could claim to unpack to; files are stored, not packed."""

MOST_IN_MEMORY = 64 << 20
"""Bytes of the manifest, of study.json, or of one line of a table."""

_CHUNK = 1 << 20
_LINES = 1000
_LEVEL = 3  # packs 60 MB of epochs in a third of the time of the default, to a tenth more
_PART = re.compile(r"[^\x00-\x1f\x7f/\\:]{1,200}")
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError),
)
"""What zipfile raises for a file that is damaged or no zip at all."""


class _Member(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    unpacked: Annotated[int, Field(ge=0)]
    members: dict[str, _Member]


def is_file_name(name: str) -> bool:
    """Whether a relative name, with slashes, stays inside the folder that it is relative to."""
    return all(_PART.fullmatch(part) and part.strip(". ") for part in name.split("/"))


class ArchiveWriter:
    """Writes one archive; the file appears under its name when the context ends well, and not at all otherwise.

    Args:
        target: The file. One that is there is replaced.

    Raises:
        NeurosweepError: It can't be written.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
        self._members: dict[str, _Member] = {}
        self._abandoned = False

    def __enter__(self) -> Self:
        try:
            self._file = self._scratch.open("wb")
        except OSError as exc:
            raise self._unwritable(exc) from exc
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        return self

    def add_table(self, name: str, lines: Iterable[bytes]) -> int:
        """Packs lines; returns how many there were."""
        count = 0

        def counted() -> Iterator[bytes]:
            nonlocal count
            source = iter(lines)
            while batch := list(itertools.islice(source, _LINES)):
                count += len(batch)
                yield b"".join(batch)

        self._add(name, counted())
        return count

    def add_file(self, name: str, file: IO[bytes]) -> None:
        """Stores one of the study's files, up to its end."""
        self._add(zipfile.ZipInfo(FILES + name), iter(lambda: file.read(_CHUNK), b""))

    def abandon(self) -> None:
        """Leaves no file when the context ends."""
        self._abandoned = True

    def _add(self, member: str | zipfile.ZipInfo, pieces: Iterable[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with self._zip.open(member, "w", force_zip64=True) as output:
            for piece in pieces:
                output.write(piece)
                digest.update(piece)
                size += len(piece)
                reach("export_piece")
        name = member if isinstance(member, str) else member.filename
        self._members[name] = _Member(size=size, sha256=digest.hexdigest())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._abandoned:
                self._finish()
            elif isinstance(error, OSError):
                raise self._unwritable(error) from error
        except OSError as exc:
            raise self._unwritable(exc) from exc
        finally:
            # Harmless after `_finish`; what is left of a failed one can't be written either.
            for close in (self._zip.close, self._file.close):
                with contextlib.suppress(OSError, ValueError):
                    close()
            self._scratch.unlink(missing_ok=True)

    def _finish(self) -> None:
        manifest = _Manifest(unpacked=sum(member.size for member in self._members.values()), members=self._members)
        self._zip.writestr(MANIFEST, manifest.model_dump_json(indent=1))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._scratch.replace(self._target)
        sync_folder(self._target.parent)

    def _unwritable(self, exc: OSError) -> NeurosweepError:
        what = f" ({exc.filename})" if exc.filename else ""
        return NeurosweepError(f"It can't be written: {exc.strerror}{what}. Nothing is left of it.", str(self._target))


class Archive:
    """Reads one archive that may come from anywhere. A context manager.

    Args:
        path: The file.

    Raises:
        BadInputError: It is not whole, or not what an export writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE:
            raise self._bad("it is not a zip, or only a part of one") from None
        try:
            self._check()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def files(self) -> dict[str, str]:
        """The study's files: for each name its sha256."""
        return {
            name.removeprefix(FILES): member.sha256 for name, member in self._members.items() if name.startswith(FILES)
        }

    @property
    def files_size(self) -> int:
        """Bytes of the study's files."""
        return sum(member.size for name, member in self._members.items() if name.startswith(FILES))

    def verify_tables(self) -> None:
        """Compares each table with its checksum."""
        for name in TABLES:
            for _ in self._pieces(name):
                pass

    def read(self, name: str) -> bytes:
        """A small member as a whole."""
        if self._members[name].size > MOST_IN_MEMORY:
            raise self._bad(f"{name} is too large")
        return b"".join(self._pieces(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """A table's lines, one at a time."""
        with self._readable(name), io.BufferedReader(self._zip.open(name), _CHUNK) as source:  # type: ignore[type-var]  # a ZipExtFile is read as a raw stream
            while line := source.readline(MOST_IN_MEMORY + 1):
                if len(line) > MOST_IN_MEMORY:
                    raise self._bad(f"{name} has a line of more than {MOST_IN_MEMORY >> 20} MB")
                yield line

    def unpack(self, name: str, target: IO[bytes]) -> None:
        """Writes one of the study's files, and compares it with its checksum."""
        for piece in self._pieces(FILES + name):
            target.write(piece)

    def _pieces(self, name: str) -> Iterator[bytes]:
        member, digest, size = self._members[name], hashlib.sha256(), 0
        with self._readable(name), self._zip.open(name) as source:
            while piece := source.read(_CHUNK):
                size += len(piece)
                if size > member.size:
                    raise self._bad(f"{name} is larger than its manifest says")
                digest.update(piece)
                yield piece
        if size != member.size or digest.hexdigest() != member.sha256:
            raise self._bad(f"{name} is not what its checksum says")

    def _check(self) -> None:
        """Refuses what no export writes: of names, kinds, sizes and members."""
        entries = self._zip.infolist()
        by_name = {entry.filename: entry for entry in entries}
        if len(by_name) < len(entries):
            raise self._bad("it has a member twice")
        for entry in entries:
            self._check_entry(entry)
        if sum(entry.compress_size for entry in entries) > self._path.stat().st_size:
            raise self._bad("its members overlap")
        if MANIFEST not in by_name or by_name[MANIFEST].file_size > MOST_IN_MEMORY:
            raise self._bad(f"it has no {MANIFEST}, or one that is too large")
        try:
            with self._readable(MANIFEST), self._zip.open(MANIFEST) as source:
                manifest = _Manifest.model_validate_json(source.read(MOST_IN_MEMORY))
        except ValidationError:
            raise self._bad(f"its {MANIFEST} is damaged") from None
        self._members = manifest.members
        if self._members.keys() != by_name.keys() - {MANIFEST} or not self._members.keys() >= set(TABLES):
            raise self._bad("its members are not those of its manifest")
        if any(by_name[name].file_size != member.size for name, member in self._members.items()):
            raise self._bad("its members have not the sizes of its manifest")
        self._check_sizes(manifest)

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name, mode = entry.filename, entry.external_attr >> 16
        is_file = name.startswith(FILES) and is_file_name(name.removeprefix(FILES))
        if not is_file and name not in (*TABLES, MANIFEST):
            raise self._bad(f"it has a member that no export writes: {name[:80]!r}")
        if entry.orig_filename != name:
            raise self._bad(f"it has a member that no export writes: {entry.orig_filename[:80]!r}")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise self._bad(f"{name[:80]!r} is a link or a device, not a file")
        packed = (zipfile.ZIP_STORED,) if is_file else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        stored_whole = entry.compress_type != zipfile.ZIP_STORED or entry.compress_size == entry.file_size
        if entry.compress_type not in packed or not stored_whole or entry.flag_bits & 0x1:
            raise self._bad(f"{name[:80]!r} is encrypted, or packed in a way that no export packs")

    def _check_sizes(self, manifest: _Manifest) -> None:
        total = sum(member.size for member in self._members.values())
        tables = sum(self._members[name].size for name in TABLES)
        if total != manifest.unpacked:
            raise self._bad("its manifest contradicts itself")
        if total > MOST_UNPACKED or tables > MOST_TABLES:
            raise self._bad(
                f"unpacked it has {total >> 30} GB, {tables >> 30} GB of them tables; at most {MOST_UNPACKED >> 30} GB "
                f"and {MOST_TABLES >> 30} GB are taken"
            )

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE:
            raise self._bad(f"{name} is damaged") from None
        except OSError as exc:  # also of a place before the file's first byte, which a damaged list of members can name
            raise self._bad(f"{name} can't be read: {exc.strerror}") from None

    def _bad(self, reason: str) -> BadInputError:
        return BadInputError(f"This is not a whole file of `neurosweep export`: {reason}.", str(self._path))


def sync_folder(folder: Path) -> None:
    """Makes what was renamed in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
