"""The commands that take one study out of a database, in a file, and into another one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neurosweep.errors import BadInputError, NeurosweepError
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.studies import open_store, resume_hint
from storage.records import StudyState

if TYPE_CHECKING:
    from search.archive import Archive
    from search.places import Places
    from storage.records import StudyRecord
    from storage.store import Store
    from storage.transfer import Parcel, Snapshot

_TRIES = 3
"""How often the export of a study that changes its state meanwhile begins again."""


@dataclass(frozen=True, kw_only=True)
class _Written:
    study: StudyRecord
    trials: int
    files: int


@click.command("export", cls=Command)
@click.argument("study")
@click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(path_type=Path), help="Default: NAME-UID.neurosweep.zip"
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def export_study(study: str, file: Path | None, force: bool, as_json: bool) -> None:
    """Write one STUDY with all that belongs to it to a file.

    Trials, epochs, Optuna's part, checkpoints, plots and the champion, but not the data. A study that is being worked
    on is written as it stands at this moment.

    \b
    Example:
      neurosweep export digits
      neurosweep export digits@2 -o digits.zip
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    target = file or Path(f"{record.name}-{record.uid}.neurosweep.zip")
    if target.is_dir():
        raise BadInputError("-o takes a file's name, and this is a folder.", str(target))
    if target.exists() and not force:
        raise BadInputError("The file is there already; --force writes over it.", str(target))
    written = _export(store, record, where, target)
    size = target.stat().st_size
    if as_json:
        label = written.study.label
        document = {"study": label, "trials": written.trials, "files": written.files, "bytes": size}
        print_json({"file": str(target), **document})
        return
    say(f"Wrote {written.study.label} to {target}: {_counted(written.trials, written.files)}, {size / 1e6:.1f} MB.")
    if written.study.state is StudyState.RUNNING:
        tell("it is being worked on; the file has it as it stood, and will come in as stopped")


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_study(file: Path, as_json: bool) -> None:
    """Take in a study from a file of `neurosweep export`.

    It gets the next free number of its name. What was being worked on comes in as stopped; `neurosweep resume` goes on
    with it. MLflow is told of it as of any other study.

    \b
    Example:
      neurosweep import digits.zip
      neurosweep import digits.zip --database postgresql://me@db/studies
    """
    from search.archive import Archive

    where = places()
    with Archive(file) as archive:
        try:
            archive.verify_tables()
            parcel = _checked(archive)
            store = open_store(where)
            record = _take_in(store, where, archive, parcel)
        except BadInputError as error:
            error.where = error.where or str(file)
            raise
        files = len(archive.files)
    trials = sum(store.summary(record.id).counts.values())
    if as_json:
        print_json({"study": record.label, "trials": trials, "state": record.state.value, "files": files})
        return
    say(f"{record.label} is here, {record.state}: {_counted(trials, files)}.")
    if parcel.head.study.state is StudyState.RUNNING:
        tell("it was being worked on when it was exported: see to it that only one of the two goes on")
    if record.state is StudyState.STOPPED:
        tell(resume_hint(store, record))


def _counted(trials: int, files: int) -> str:
    return f"{trials} {'trial' if trials == 1 else 'trials'}, {files} {'file' if files == 1 else 'files'}"


def _export(store: Store, study: StudyRecord, where: Places, target: Path) -> _Written:
    for _ in range(_TRIES):
        written = store.export(study.id, partial(_write, before=study, where=where, target=target))
        if written is not None:
            return written
        study = store.study(study.id)  # its state has changed: so may have its files
    raise NeurosweepError(f"{study.label} changes faster than it can be exported: try again.")


def _write(snapshot: Snapshot, before: StudyRecord, where: Places, target: Path) -> _Written | None:
    """Writes the file. None, and no file, where the study's end came between its files and its rows."""
    from search.archive import ArchiveWriter
    from search.study_files import study_files

    with ArchiveWriter(target) as archive:
        # Files first, before the transaction begins: rows that are ahead of a checkpoint are harmless, epochs that only
        # a checkpoint knows are not; and a database does not let a transaction wait for large files.
        files = 0
        for name, opened in study_files(where, before.uid).items():
            try:
                file = opened()
            except FileNotFoundError:
                continue  # replaced by a newer one meanwhile
            with file:
                archive.add_file(name, file)
            files += 1
        study = snapshot.study()
        if (study.state, study.ended_at) != (before.state, before.ended_at):
            archive.abandon()
            return None
        archive.add_table("study.json", [snapshot.head()])
        trials = archive.add_table("trials.jsonl", snapshot.trials())
        archive.add_table("optuna.jsonl", snapshot.optuna_trials())
        archive.add_table("epochs.jsonl", snapshot.epochs())
    return _Written(study=study, trials=trials, files=files)


def _checked(archive: Archive) -> Parcel:
    """The study in a file, which says of itself what this program can go on with."""
    from search.spec import StudySpec
    from storage.transfer import Parcel, read_head

    head = read_head(archive.read("study.json"))
    try:
        spec = StudySpec.from_mapping(head.study.spec)
    except BadInputError as error:
        reason = " ".join(str(error).split())
        raise BadInputError(f"Its study file breaks a rule of this neurosweep: {reason}") from None
    if spec.name != head.study.name:
        raise BadInputError(f"Its study file names {spec.name!r}, its row {head.study.name!r}.")
    return Parcel(
        head=head,
        trials=lambda: archive.lines("trials.jsonl"),
        epochs=lambda: archive.lines("epochs.jsonl"),
        optuna_trials=lambda: archive.lines("optuna.jsonl"),
    )


def _take_in(store: Store, where: Places, archive: Archive, parcel: Parcel) -> StudyRecord:
    from search.study_files import Arrival
    from storage.transfer import refuse_known

    uid = parcel.head.study.uid
    refuse_known(store.by_uid(uid))
    with Arrival(where, uid, archive) as arrival:
        try:
            return store.take_in(parcel, arrival.place)
        except BaseException:
            # Where the database does not answer it may have the study: then its files stay.
            with contextlib.suppress(NeurosweepError):
                if store.by_uid(uid) is None:
                    arrival.take_back()
            raise
