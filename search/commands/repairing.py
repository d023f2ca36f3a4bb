"""The commands that put things right: MLflow from the database, and what a crash has left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neurosweep.errors import NeurosweepError, UnreachableError
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.studies import open_store
from search.commands.words import duration
from search.disk import existing, free_bytes
from storage.records import ENDED, StudyRecord, StudyState, TrialState
from storage.secrecy import public_address

if TYPE_CHECKING:
    from search.places import Places
    from storage.store import Store

LITTLE_ROOM = 1 << 30
"""Bytes that a disk should have left."""

_SHOWN = 10
"""Trials that a line names."""


@click.command(cls=Command)
@click.argument("study")
@json_option
def sync(study: str, as_json: bool) -> int:
    """Write STUDY to MLflow again, from the database.

    For an MLflow that has lost it, or that refused some of it: into an empty one as well. What is there already stays
    as it is. The champion's files are needed where MLflow has no model yet.

    \b
    Example:
      neurosweep sync digits
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    facts = store.tell_again(record.id)
    if facts:
        _publish(store, record, where, facts)
    behind = store.behind(record.id)
    told = facts - behind.pending - behind.set_aside
    reason = behind.oldest_reason or behind.set_aside_reason
    if as_json:
        counts = {"published": told, "pending": behind.pending, "set_aside": behind.set_aside}
        print_json({"study": record.label, "facts": facts, **counts, "reason": reason})
    elif facts:
        say(f"{record.label}: {told} of {facts} facts written to {public_address(where.tracking)}")
    else:
        say(f"{record.label} is {record.state}: there is nothing to write yet")
    return _status_of(store, record)


def _publish(store: Store, study: StudyRecord, where: Places, facts: int) -> None:
    """Let a publisher's process write everything, or give up."""
    import threading

    from search.publishing import Publisher

    publisher = Publisher(where)
    publisher.order_drain(study.id)
    try:
        with click.progressbar(length=facts, label=f"{study.label}: writing to MLflow", file=sys.stderr) as bar:
            while not publisher.ended():
                bar.update(facts - store.pending_facts(study.id) - bar.pos)
                time.sleep(0.2)
        if said := publisher.drained(threading.Event()):
            tell(said)
    finally:
        publisher.stop()


def _status_of(store: Store, study: StudyRecord) -> int:
    """The exit status: 0 done, 1 something is left though MLflow answers, 3 it does not."""
    from storage.telling import NOT_HERE

    behind = store.behind(study.id)
    if behind.pending and NOT_HERE not in (behind.oldest_reason or ""):
        return UnreachableError.exit_status
    return 1 if behind.pending or behind.set_aside else 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        study: Which study it is about; None for none.
    """

    kind: str
    message: str
    study: str | None = None
    repaired: bool = False


@click.command(cls=Command)
@click.option("--repair", is_flag=True, help="Put right what can be put right from here.")
@json_option
def doctor(repair: bool, as_json: bool) -> int:
    """Check the database, MLflow and the disk, and repair them.

    Looks for studies without a dispatcher, trials without end, facts that do not reach MLflow, files that belong to no
    study, and tables that disagree. Changes nothing without --repair. The exit status is 1 where something is left.

    \b
    Example:
      neurosweep doctor
      neurosweep doctor --repair
    """
    findings = list(examine(places(), repair))
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    for finding in () if as_json else findings:
        about = f"{finding.study}: " if finding.study else ""
        say(f"{'repaired' if finding.repaired else 'found'}  {finding.kind:<11} {about}{finding.message}")
    if not findings and not as_json:
        say("All is well.")
    return 0 if all(finding.repaired for finding in findings) else 1


def examine(where: Places, repair: bool) -> Iterator[Finding]:
    """Everything that is not as it should be; repaired where that is asked for and possible.

    Raises:
        UnreachableError: The database does not answer.
    """
    yield from disks(where)
    yield from mlflow(where)
    schema = list(_schema(where))
    yield from schema
    if not all(finding.repaired for finding in schema):
        return
    store = open_store(where)
    for check in (leases, trials, outbox, optuna):
        yield from check(store, repair)
    studies = [summary.study for summary in store.list_studies()]
    yield from checkpoints(where.home, studies)
    yield from leftover_checkpoints(where, studies, repair)


def _schema(where: Places) -> Iterator[Finding]:
    from storage.database import HEAD, schema_version

    version = schema_version(where.database)
    if version in (None, HEAD):  # none: a new database
        return
    try:
        open_store(where)
    except UnreachableError:
        raise
    except NeurosweepError as error:
        yield Finding(kind="schema", message=f"{error.message} (it is {version}, this program's is {HEAD})")
    else:
        yield Finding(kind="schema", message=f"it was {version} and is {HEAD} now", repaired=True)


def leases(store: Store, repair: bool) -> Iterator[Finding]:
    """Studies whose dispatcher is gone."""
    for left in store.abandoned():
        repaired = repair and store.put_back(left.study.id)
        remedy = "it waits in the queue again" if repaired else "a `neurosweep serve` takes it over"
        yield Finding(
            kind="lease",
            study=left.study.label,
            message=f"the lease of {left.dispatcher} ran out {duration(left.seconds)} ago; {remedy}",
            repaired=repaired,
        )


def trials(store: Store, repair: bool) -> Iterator[Finding]:
    """Trials that are running in a study that has ended."""
    for study_id, numbers in store.forgotten_trials().items():
        study = store.study(study_id)
        if repair:
            store.fail_forgotten(study_id)
        more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
        named = f"{', '.join(map(str, numbers[:_SHOWN]))}{more}"
        yield Finding(
            kind="trial",
            study=study.label,
            message=f"it is {study.state}, but trials were running still: {named}"
            f"; {'they are marked as failed' if repair else '--repair marks them as failed'}",
            repaired=repair,
        )


def outbox(store: Store, repair: bool) -> Iterator[Finding]:
    """Facts that do not reach MLflow."""
    for summary in store.list_studies():
        study, behind = summary.study, store.behind(summary.study.id)
        if behind.pending and (behind.oldest_reason or study.state is not StudyState.RUNNING):
            why = behind.oldest_reason or "nobody has tried"
            remedy = f"a serve, or `neurosweep sync {study.label}`, tries again"
            yield Finding(kind="outbox", study=study.label, message=f"{behind.pending} facts wait: {why}; {remedy}")
        if behind.set_aside:
            if repair:
                store.take_back(study.id)
            remedy = "they wait again" if repair else "--repair lets them be tried again"
            yield Finding(
                kind="set_aside",
                study=study.label,
                message=f"{behind.set_aside} facts were set aside: {behind.set_aside_reason}; {remedy}",
                repaired=repair,
            )


def optuna(store: Store, repair: bool) -> Iterator[Finding]:
    """Studies of which Optuna's tables say something else than ours. A study that is worked on is left alone."""
    for summary in store.list_studies():
        if summary.study.state is StudyState.RUNNING:
            continue
        ours = {state: count for state, count in summary.counts.items() if count}
        theirs = store.optuna_counts(summary.study.id)
        if ours != theirs:
            yield Finding(
                kind="optuna",
                study=summary.study.label,
                message=f"Optuna's tables have {_counted(theirs)}, ours {_counted(ours)}; ours count",
            )


def _counted(counts: dict[TrialState, int]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in TrialState if state in counts) or "no trials"


def checkpoints(home: Path, studies: Sequence[StudyRecord]) -> Iterator[Finding]:
    """Files of studies that this database does not have. They may be another database's, so nothing is deleted."""
    known = {study.uid for study in studies}
    folder = home / "studies"
    for left in sorted(folder.iterdir()) if folder.is_dir() else ():
        if left.is_dir() and left.name not in known:
            yield Finding(
                kind="checkpoint",
                message=f"{left} is of no study in this database; delete it unless another database uses this folder",
            )


def leftover_checkpoints(where: Places, studies: Sequence[StudyRecord], repair: bool) -> Iterator[Finding]:
    """Checkpoints of trials in studies that have ended: their dispatcher died before it removed them."""
    from search.checkpoint_store import CheckpointStore

    for study in studies:
        if study.state not in ENDED:
            continue
        try:
            store = CheckpointStore(where.checkpoints_of(study.uid))
            trials = len(store.found())
            if trials and repair:
                store.clear()
        except OSError as error:
            yield Finding(kind="checkpoint", study=study.label, message=f"its checkpoints can't be read: {error}")
            continue
        if trials:
            done = "removed" if repair else "--repair removes them"
            words = f"it is {study.state}, and checkpoints of {trials} of its trials are left; {done}"
            yield Finding(kind="checkpoint", study=study.label, message=words, repaired=repair)


def mlflow(where: Places) -> Iterator[Finding]:
    """An MLflow that does not answer."""
    from storage.mlflow_door import why_unreachable

    if reason := why_unreachable(where.tracking):
        yield Finding(kind="mlflow", message=reason)


def disks(where: Places, free: Callable[[Path], int] = free_bytes) -> Iterator[Finding]:
    """A disk with little room left."""
    folder = existing(where.home)
    left = free(folder)
    if left < LITTLE_ROOM:
        yield Finding(kind="disk", message=f"{folder} has {left / (1 << 20):,.0f} MB left: make room there")
