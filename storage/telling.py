"""The outbox's side of publishing: what is told next, what waits and how long, what is set aside. Without mlflow."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neurosweep.errors import DiskFullError, LeaseLostError, NeurosweepError, UnreachableError
from neurosweep.failpoints import reach
from storage.facts import extra_run_key, page_of
from storage.heartbeat import Heartbeat
from storage.projection import OVER
from storage.publisher_loop import Turn
from storage.records import (
    OF_PARENT,
    EpochRow,
    ExtraRun,
    Fact,
    FactKind,
    MlflowRun,
    OutboxClaim,
    StudyRecord,
    TrialRecord,
)
from storage.store import Store

LEASE = 15.0  # seconds: shorter than PATIENCE, so that a drain outlives a publisher that was killed
RENEW = 3.0  # seconds between two heartbeats, and the longest that what was published is not acknowledged
CHUNK = 50  # facts read and acknowledged together
SLOWEST = 8.0  # seconds: the longest wait between two attempts, shorter than PATIENCE so that a drain sees two
ATTEMPTS = 5  # of a fact that MLflow refuses while it takes others; then it is set aside
ELSEWHERE = 3.0  # seconds: another publisher has the champion's files, and this one should not be in its way

log = logging.getLogger("storage.publisher")


class ElsewhereError(NeurosweepError):
    """The champion's files, or a page, are not on this machine: all but them could be published."""


def champion_folder(home: Path, study: StudyRecord) -> Path:
    return home / "studies" / study.uid / "champion"


NOT_HERE = "files are not in"


def check_champion(folder: Path) -> None:
    """Raise NeurosweepError where the champion isn't on this machine."""
    if not (folder / "network.pt2").is_file():
        raise ElsewhereError(f"the champion's {NOT_HERE} {folder}: it has to be published where it was trained")


def page_file(home: Path, study: StudyRecord, name: str) -> Path:
    """Where a page of a study is; raises NeurosweepError where it isn't on this machine."""
    file = home / "studies" / study.uid / "pages" / f"{name}.html"
    if not file.is_file():
        raise ElsewhereError(f"the page's {NOT_HERE} {file.parent}: it has to be published where {name}.html was made")
    return file


class StudyInMlflow(Protocol):
    """One study's runs, wherever they are kept."""

    experiment_id: str

    @property
    def parent(self) -> str | None:
        """Run id of the parent run, where it is there."""

    def is_there(self) -> bool:
        """Whether this MLflow is still the one that was read."""

    def read_runs(self) -> None:
        """Find all runs that are there, and delete doubled ones."""

    def start(self, study: StudyRecord) -> str:
        """Write the parent run; returns its id."""

    def trial(self, study: StudyRecord, trial: TrialRecord, epochs: Sequence[EpochRow]) -> None:
        """Write the run of a trial that has ended."""

    def extra_run(self, study: StudyRecord, run: ExtraRun) -> None:
        """Write the run of an extra run."""

    def page(self, study: StudyRecord, name: str) -> None:
        """Attach a page to the parent run."""

    def end(self, study: StudyRecord) -> str:
        """Complete the parent run; returns its id."""


@dataclass(frozen=True, kw_only=True)
class _Subjects:
    """What facts are about: trials by number, their epochs, extra runs by key."""

    trials: dict[int, TrialRecord]
    epochs: dict[int, list[EpochRow]]
    extra_runs: dict[str, ExtraRun]


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a fact could not be told; `of_the_fact` where others can be all the same."""

    error: Exception
    of_the_fact: bool


class _Held(Heartbeat):
    """A study's outbox, kept by a heartbeat while its context lasts: a slow MLflow takes longer than a lease."""

    def __init__(self, store: Store, claim: OutboxClaim) -> None:
        super().__init__(
            lambda: store.renew_outbox(claim, LEASE), RENEW, "outbox", on_error=lambda error: log.warning("%s", error)
        )


class Teller:
    """Tells MLflow due facts, study by study, each study's in order, under the study's outbox lease.

    A fact that MLflow refuses is put off alone, and set aside after some attempts. Where MLflow itself does not answer
    everything waits, and no attempt counts.

    Args:
        home: Holds the champions' files.
        read: Finds what MLflow has of a study.
        refuses: Whether an error says that MLflow does answer, but not to this fact.
        reason: An error in a line, without secrets.
        file: Which file holds MLflow, where one does: another one is another MLflow.
    """

    def __init__(
        self,
        store: Store,
        home: Path,
        *,
        read: Callable[[StudyRecord], StudyInMlflow],
        refuses: Callable[[Exception], bool],
        reason: Callable[[Exception], str],
        file: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._store, self._home = store, home
        self._read, self._refuses, self._reason_of, self._find_file = read, refuses, reason, file
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._studies: dict[int, tuple[int, StudyInMlflow]] = {}  # with the token under which it was read
        self._doubtful: set[int] = set()  # studies with a request that may yet arrive
        self._elsewhere: set[str] = set()  # facts that are published but for the champion
        self._file: int | None = None
        self._parents: dict[int, str] = {}  # run id that the database has been told, by study
        self._failures = 0  # of MLflow to answer, in a row
        self._rest_until = 0.0  # monotonic
        self._reason: str | None = None

    def publish_due(self, stopped: Callable[[], bool] = lambda: False) -> Turn:
        """Publish all that is due now. Where MLflow does not answer nothing is tried for a while, longer each time.

        Raises:
            UnreachableError: The database does not answer.
            DiskFullError: It has no room.
        """
        published = 0
        if time.monotonic() >= self._rest_until:
            self._reason = None
        while not stopped() and time.monotonic() >= self._rest_until:
            claim = self._store.claim_outbox(self._name, LEASE)
            if claim is None:
                break
            try:
                with _Held(self._store, claim) as held:
                    published += self._publish_study(claim, held, stopped)
                self._store.release_outbox(claim)
            except LeaseLostError:
                log.warning("study %s: another publisher has taken over", claim.study.label)
                self._studies.pop(claim.study.id, None)
                self._sweep(claim.study)
        return Turn(published=published, reason=self._reason)

    def _sweep(self, study: StudyRecord) -> None:
        """Deletes what this publisher has made twice since another one had the study."""
        try:
            self._read(study)
        except Exception as error:
            log.warning("study %s could not be swept: %s", study.label, self._reason_of(error))

    def _publish_study(self, claim: OutboxClaim, held: _Held, stopped: Callable[[], bool]) -> int:
        """Publish a study's due facts while MLflow answers; returns how many."""
        published, answers = 0, True
        while answers and not stopped() and (facts := self._store.facts(claim, CHUNK)):
            done, answers = self._publish_facts(claim, held, facts, stopped)
            published += done
        return published

    def _publish_facts(
        self, claim: OutboxClaim, held: _Held, facts: Sequence[Fact], stopped: Callable[[], bool]
    ) -> tuple[int, bool]:
        """Publish some facts in order; returns how many, and whether MLflow answers."""
        subjects = self._subjects(claim.study, facts)
        published, done, acknowledged = 0, list[str](), time.monotonic()
        parent_waits, answers = False, True
        for fact in facts:
            if stopped():
                break
            held.check()
            if fact.kind in OF_PARENT and parent_waits:
                continue  # a study's own facts go to one run, in order
            failure = self._attempt(claim, fact, subjects, look=fact is facts[0])
            if failure is None:
                done.append(fact.key)
            else:
                answers = failure.of_the_fact
                parent_waits |= fact.kind in OF_PARENT
                self._put_off(claim, fact, failure)
            if done and (not answers or time.monotonic() - acknowledged > RENEW):
                published += self._acknowledge(claim, done)
                acknowledged = time.monotonic()
            if not answers:
                break
        return published + self._acknowledge(claim, done), answers

    def _acknowledge(self, claim: OutboxClaim, done: list[str]) -> int:
        """Tell the database what was published, and empty the list; returns how many there were."""
        count = len(done)
        if done:
            reach("before_acknowledge")
            self._store.published(claim, done)
            self._failures = 0
            done.clear()
        return count

    def _attempt(self, claim: OutboxClaim, fact: Fact, subjects: _Subjects, look: bool) -> _Failure | None:
        """Tell MLflow one fact.

        Args:
            look: Look first whether MLflow is still what it was.
        """
        began = False
        try:
            study = self._in_mlflow(claim, look)
            if fact.kind not in OF_PARENT and study.parent is None:
                study.start(self._store.study(claim.study.id))  # no trial before its parent
            began = True
            self._tell(claim, study, fact, subjects)
            self._remember_parent(claim, study)
        except (LeaseLostError, UnreachableError, DiskFullError):
            raise
        except Exception as error:  # whatever it is, the fact waits and training goes on
            return _Failure(error=error, of_the_fact=began and self._refuses(error))
        return None

    def _tell(self, claim: OutboxClaim, study: StudyInMlflow, fact: Fact, subjects: _Subjects) -> None:
        match fact.kind:
            case FactKind.TRIAL_ENDED if fact.trial is not None:
                study.trial(claim.study, subjects.trials[fact.trial], subjects.epochs[fact.trial])
            case FactKind.EXTRA_RUN_ENDED:
                study.extra_run(claim.study, subjects.extra_runs[fact.key])
            case FactKind.PAGE_WRITTEN:
                study.page(self._store.study(claim.study.id), page_of(fact.key))
            case _:
                self._publish_study_fact(claim, study, fact)

    def _in_mlflow(self, claim: OutboxClaim, look: bool) -> StudyInMlflow:
        """The study as it is in MLflow: read again after a failure, as a request that failed may have gone through,
        after another publisher has held the outbox, as it may have gone away between a run and its receipt, and where
        MLflow has been replaced by an empty one."""
        if look and (file := self._find_file()) != self._file:
            self._file = file
            self._studies.clear()
        token, study = self._studies.get(claim.study.id, (0, None))
        if study is not None and look and not study.is_there():
            log.warning("%s is not in MLflow any more: `neurosweep sync` writes it again", claim.study.label)
            study = None
        if study is None or claim.token > token + 1:
            study = self._read(claim.study)
        self._studies[claim.study.id] = claim.token, study
        return study

    def _remember_parent(self, claim: OutboxClaim, study: StudyInMlflow) -> None:
        if study.parent is not None and self._parents.get(claim.study.id) != study.parent:
            self._store.set_run(claim, MlflowRun(experiment_id=study.experiment_id, run_id=study.parent))
            self._parents[claim.study.id] = study.parent

    def _subjects(self, study: StudyRecord, facts: Sequence[Fact]) -> _Subjects:
        """What the facts are about, each kind in one query."""
        ended = [fact.trial for fact in facts if fact.kind is FactKind.TRIAL_ENDED and fact.trial is not None]
        extra = any(fact.kind is FactKind.EXTRA_RUN_ENDED for fact in facts)
        epochs: dict[int, list[EpochRow]] = {number: [] for number in ended}
        for row in self._store.epochs(study.id, ended) if ended else ():
            epochs[row.trial].append(row)
        return _Subjects(
            trials={trial.number: trial for trial in self._store.trials(study.id, ended)} if ended else {},
            epochs=epochs,
            extra_runs={extra_run_key(study, run): run for run in self._store.extra_runs(study.id)} if extra else {},
        )

    def _publish_study_fact(self, claim: OutboxClaim, study: StudyInMlflow, fact: Fact) -> None:
        current = self._store.study(claim.study.id)
        if fact.kind is FactKind.STUDY_STARTED:
            study.start(current)
        elif current.state in OVER:  # else it was resumed meanwhile: its next end says more
            if fact.key in self._elsewhere:
                check_champion(champion_folder(self._home, current))
            if current.id in self._doubtful:  # reading hundreds of runs takes half a second
                study.read_runs()
                self._doubtful.discard(current.id)
            study.end(current)

    def _put_off(self, claim: OutboxClaim, fact: Fact, failure: _Failure) -> None:
        """Make a fact wait, alone where the reason is its own, else with all others; longer each time in a row."""
        error, self._reason = failure.error, self._reason_of(failure.error)
        if isinstance(error, ElsewhereError):
            if fact.key not in self._elsewhere:
                log.warning("%s waits: %s", fact.key, self._reason)
            self._elsewhere.add(fact.key)
            self._store.postponed(claim, fact.key, self._reason, ELSEWHERE)
            return
        if type(error).__module__ == "builtins" and not isinstance(error, OSError):
            log.error("unexpected", exc_info=error)
        self._studies.pop(claim.study.id, None)
        self._doubtful.add(claim.study.id)
        if failure.of_the_fact:
            set_aside = fact.attempts + 1 >= ATTEMPTS
            log.warning("%s %s: %s", fact.key, "is set aside" if set_aside else "waits", self._reason)
            self._store.refused(claim, fact, self._reason, _delay(fact.attempts), set_aside)
            return
        delay = _delay(self._failures)
        self._failures += 1
        self._rest_until = time.monotonic() + delay
        log.warning("%s and all others wait %.1f s: %s", fact.key, delay, self._reason)
        self._store.postponed(claim, fact.key, self._reason, delay)


def _delay(failures: int) -> float:
    """Seconds until the next attempt, after so many failures before this one."""
    return float(min(SLOWEST, 0.5 * 2 ** min(failures, 30)))
