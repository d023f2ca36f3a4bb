"""The store: everything that is remembered, behind one object for each database. Each method is one transaction."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa

from neurosweep.failpoints import reach
from storage import facts, insight, outbox, queue, repairs, results
from storage.database import migrate, open_engine, transaction_retry, translated
from storage.records import (
    AbandonedStudy,
    Batch,
    Behind,
    Claim,
    EpochRow,
    ExtraRun,
    Fact,
    MlflowRun,
    NewStudy,
    Opening,
    OutboxClaim,
    StudyRecord,
    StudyState,
    StudySummary,
    TrialRecord,
    TrialState,
)

if TYPE_CHECKING:
    from storage.optuna_tables import FrozenTrial, OptunaStudy
    from storage.transfer import Parcel, Snapshot

Answer = TypeVar("Answer")


class Store:
    """One database. May be used from several threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._optuna: tuple[Claim, OptunaStudy] | None = None
        self._optuna_has_tables = False
        self._recording = threading.Lock()

    @classmethod
    def open(cls, url: str) -> Self:
        """Opens a database and brings its schema up to date.

        Raises:
            BadInputError: The address is not one of SQLite or PostgreSQL.
            UnreachableError: The database does not answer.
            NeurosweepError: It belongs to a newer program.
        """
        engine = open_engine(url)
        migrate(engine)
        return cls(engine)

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    # The queue

    def submit(self, new: NewStudy) -> StudyRecord:
        """Puts a study into the queue."""
        at, tries = datetime.now(UTC), itertools.count()
        return self._write(lambda connection: queue.submit(connection, new, at, again=next(tries) > 0))

    def study(self, study_id: int) -> StudyRecord:
        """One study as it stands.

        Raises:
            NoSuchStudyError: There is none with this id.
        """
        return self._read(lambda connection: queue.by_id(connection, study_id))

    def find(self, label: str) -> StudyRecord:
        """The newest study of a name, or ``name@N``.

        Raises:
            NoSuchStudyError: There is none.
        """
        return self._read(lambda connection: queue.find(connection, label))

    def list_studies(self) -> list[StudySummary]:
        """All studies, newest first."""
        return self._read(queue.summaries)

    def summary(self, study_id: int) -> StudySummary:
        """One study with its counts.

        Raises:
            NoSuchStudyError: There is none with this id.
        """
        return self._read(lambda connection: queue.summary(connection, study_id))

    def claim(self, dispatcher: str, lease_seconds: float = 30.0, study_id: int | None = None) -> Claim | None:
        """Takes the oldest waiting study, or the given one; None where there is nothing to take."""
        tries = itertools.count()
        return self._write(
            lambda connection: queue.claim(connection, dispatcher, lease_seconds, study_id, again=next(tries) > 0)
        )

    def renew(self, claim: Claim, lease_seconds: float, worked: float | None = None, notice: str | None = None) -> bool:
        """The heartbeat.

        Args:
            worked: Seconds of work on the study so far, earlier claims included; None leaves it as it is.
            notice: Why it stands still; None while it does not.

        Returns:
            Whether a cancel was requested.

        Raises:
            LeaseLostError: Another dispatcher has the study.
        """
        return self._write(lambda connection: queue.renew(connection, claim, lease_seconds, worked, notice))

    def request_cancel(self, study_id: int) -> StudyRecord:
        """Ends a study with its unfinished trials: at once where nobody works on it, soon where it runs."""

        def cancel(connection: sa.Connection) -> StudyRecord:
            record = queue.request_cancel(connection, study_id)
            if record.state is StudyState.CANCELLED and record.started_at is not None and record.ended_at is not None:
                self._fail_running(connection, record, "the study was cancelled", record.ended_at)
                # Nobody else tells MLflow: the dispatcher is gone.
                results.add_facts(connection, study_id, [facts.cancelled(record, record.ended_at)])
            return record

        return self._write(cancel)

    def _fail_running(self, connection: sa.Connection, study: StudyRecord, reason: str, at: datetime) -> None:
        """Fails what was under way in a study that nobody works on any more."""
        batch = results.failing_of_running(connection, study, reason, at)
        if batch.ended:
            from storage.optuna_tables import OptunaStudy

            results.write(connection, study.id, batch)
            optuna = OptunaStudy(connection, study.id, study.label)
            optuna.end(connection, [trial for trial in batch.ended if optuna.knows(trial.number)])

    def requeue(self, study_id: int, trials: int | None = None) -> StudyRecord:
        """Puts an ended study back into the queue.

        Raises:
            BadInputError: It has more trials than are asked for.
        """
        return self._write(lambda connection: queue.requeue(connection, study_id, trials))

    def rounds(self, tree: str) -> list[StudyRecord]:
        """The studies of a tree of rounds, in order."""
        return self._read(lambda connection: queue.of_tree(connection, tree))

    def unseal(self, study_id: int) -> StudyRecord:
        """Puts a finished round back into the queue: at its next end its test split is opened."""
        return self._write(lambda connection: queue.unseal(connection, study_id))

    # A dispatcher's writes: each carries the fencing token, and raises LeaseLostError where it is not the newest

    def started(self, claim: Claim, split_hash: str, spec: dict[str, Any], facts: Sequence[Fact] = ()) -> None:
        """Records which splits the study has, and its study file with what the data have told of it."""

        def write(connection: sa.Connection) -> None:
            queue.fence(connection, claim, split_hash=split_hash, spec=spec)
            results.add_facts(connection, claim.study.id, facts)

        self._write(write)

    def record(self, claim: Claim, batch: Batch) -> None:
        """Writes one turn of the dispatcher, to our tables, to Optuna's and to the outbox, or nothing of it."""

        def write(connection: sa.Connection) -> None:
            queue.fence(connection, claim)
            results.write(connection, claim.study.id, batch)
            reach("in_transaction")
            optuna = self._optuna_study(connection, claim)
            optuna.propose(connection, batch.proposed)
            optuna.report(connection, batch.epochs)
            optuna.end(connection, batch.ended)

        with self._recording:
            self._make_optuna_tables()
            # What is remembered of Optuna's ids may have been rolled back with a transaction that failed.
            self._write(write, failed=self._forget_optuna)

    def finish(
        self,
        claim: Claim,
        state: StudyState,
        error: str | None = None,
        result: dict[str, Any] | None = None,
        facts: Sequence[Fact] = (),
        worked: float | None = None,
    ) -> None:
        """Ends the claim: the study is in another state than running.

        Args:
            worked: Seconds of work on the study so far, earlier claims included; None leaves it as it is.
        """

        def write(connection: sa.Connection) -> None:
            queue.finish(connection, claim, state, error, result, worked)
            results.add_facts(connection, claim.study.id, facts)

        self._write(write)

    # Repairs

    def abandoned(self) -> list[AbandonedStudy]:
        """Studies that are marked as running, though their dispatcher's lease has run out."""
        return self._read(repairs.abandoned)

    def put_back(self, study_id: int) -> bool:
        """Puts an abandoned study back into the queue; False where somebody works on it again."""
        return self._write(lambda connection: repairs.put_back(connection, study_id))

    def forgotten_trials(self) -> dict[int, list[int]]:
        """Trials that are marked as running in studies that have ended, by study."""
        return self._read(repairs.forgotten_trials)

    def fail_forgotten(self, study_id: int) -> None:
        """Marks forgotten trials as failed, in our tables and in Optuna's, with the facts that say so."""
        at = datetime.now(UTC)

        def write(connection: sa.Connection) -> None:
            if repairs.has_ended(connection, study_id):
                self._fail_running(connection, queue.by_id(connection, study_id), repairs.FORGOTTEN, at)

        self._make_optuna_tables()
        self._write(write)

    def optuna_counts(self, study_id: int) -> dict[TrialState, int]:
        """How many trials of a study Optuna's tables have, by state."""
        from storage.optuna_tables import count_trials

        return self._read(
            lambda connection: count_trials(connection, study_id, queue.by_id(connection, study_id).label)
        )

    # Reading results

    def trials(self, study_id: int, numbers: Sequence[int] | None = None) -> list[TrialRecord]:
        """A study's trials, or some of them, by number."""
        return self._read(lambda connection: results.trials(connection, study_id, numbers))

    def epochs(self, study_id: int, trials: Sequence[int] | None = None) -> list[EpochRow]:
        """The epochs of a study, or of some of its trials."""
        return self._read(lambda connection: results.epochs(connection, study_id, trials))

    def optuna_trials(self, study_id: int) -> list[FrozenTrial]:
        """A study's trials as Optuna knows them, for its sampler and pruner."""
        from storage.optuna_tables import load_trials

        self._make_optuna_tables()
        label = self.study(study_id).label
        return self._read(lambda connection: load_trials(connection, study_id, label))

    # Beside the search

    def record_extra_runs(self, study_id: int, runs: Sequence[ExtraRun]) -> None:
        """Adds extra runs, and the facts that say so. One of a probe, trial and amount that are there already is left
        out."""
        at = datetime.now(UTC)
        self._write(lambda connection: insight.add_extra_runs(connection, study_id, runs, at))

    def extra_runs(self, study_id: int) -> list[ExtraRun]:
        """A study's extra runs in the order in which they ended."""
        return self._read(lambda connection: insight.extra_runs(connection, study_id))

    def record_opening(self, study_id: int, trial: int | None, reason: str) -> None:
        """Adds a look at the test split; to be called before it. The same look again, of the same network for the same
        reason, tells nothing new, and is no other one."""
        look = Opening(at=datetime.now(UTC), trial=trial, reason=reason)
        self._write(lambda connection: insight.add_opening(connection, study_id, look))

    def openings(self, study_id: int) -> list[Opening]:
        """Every look at a study's test split, the first one first."""
        return self._read(lambda connection: insight.openings(connection, study_id))

    def record_verdict(self, study_id: int, verdict: str) -> None:
        """Adds the verdict to the result of a study that has one. MLflow hears of it with the next page."""
        self._write(lambda connection: insight.set_verdict(connection, study_id, verdict))

    def publish_page(self, study_id: int, name: str) -> None:
        """Has MLflow told that ``pages/NAME.html`` in the study's folder was written, once more where it was before.

        Args:
            name: Of ``[a-z0-9-]`` only.
        """
        at = datetime.now(UTC)
        self._write(lambda connection: insight.add_page(connection, study_id, name, at))

    # The outbox, for the publisher

    def claim_outbox(self, publisher: str, lease_seconds: float) -> OutboxClaim | None:
        """Takes a study with something to publish; None where there is nothing, or others hold it."""
        return self._write(lambda connection: outbox.claim(connection, publisher, lease_seconds))

    def renew_outbox(self, claim: OutboxClaim, lease_seconds: float) -> None:
        """The publisher's heartbeat; raises LeaseLostError as all that follows."""
        self._write(lambda connection: outbox.renew(connection, claim, lease_seconds))

    def release_outbox(self, claim: OutboxClaim) -> None:
        """Lets another publisher have the study."""
        self._write(lambda connection: outbox.release(connection, claim))

    def facts(self, claim: OutboxClaim, limit: int) -> list[Fact]:
        """What is to be published, in order."""
        return self._read(lambda connection: outbox.facts(connection, claim, limit))

    def published(self, claim: OutboxClaim, keys: Sequence[str]) -> None:
        """Acknowledges facts."""
        self._write(lambda connection: outbox.published(connection, claim, keys))

    def postponed(self, claim: OutboxClaim, key: str, reason: str, delay: float) -> None:
        """Puts a fact off by `delay` seconds, for a reason that is not its own."""
        self._write(lambda connection: outbox.postponed(connection, claim, key, reason, delay))

    def refused(self, claim: OutboxClaim, fact: Fact, reason: str, delay: float, set_aside: bool) -> None:
        """Puts off, or sets aside, a fact that can't be told while others can."""
        self._write(lambda connection: outbox.refused(connection, claim, fact, reason, delay, set_aside))

    def pending_facts(self, study_id: int | None = None) -> int:
        """How many facts MLflow has not been told, those that are set aside among them."""
        return self._read(lambda connection: outbox.pending(connection, study_id))

    def behind(self, study_id: int | None = None) -> Behind:
        """How far MLflow is behind with a study, or with all, and why."""
        return self._read(lambda connection: outbox.behind(connection, study_id))

    def tell_again(self, study_id: int) -> int:
        """Makes every fact of a study due once more: its start, each ended trial and extra run, its end, its pages.
        Returns how many."""

        def write(connection: sa.Connection) -> int:
            study, trials = queue.by_id(connection, study_id), results.trials(connection, study_id, None)
            extra_runs = insight.extra_runs(connection, study_id)
            known = facts.all_of(study, trials, extra_runs, ended=outbox.tells_end(connection, study_id))
            results.add_facts(connection, study_id, known)
            return outbox.tell_again(connection, study_id)

        return self._write(write)

    def take_back(self, study_id: int) -> int:
        """Lets the facts of a study that were set aside be tried again; returns how many there were."""
        return self._write(lambda connection: outbox.take_back(connection, study_id))

    def set_run(self, claim: OutboxClaim, run: MlflowRun) -> None:
        """Remembers the study's parent run."""
        self._write(lambda connection: outbox.set_run(connection, claim, run))

    def mlflow_run(self, study_id: int) -> MlflowRun | None:
        """The study's parent run, once it is published."""
        return self._read(lambda connection: outbox.run_of(connection, study_id))

    # One study, out of this database and into another

    def export(self, study_id: int, write: Callable[[Snapshot], Answer]) -> Answer:
        """Hands one study as it stands at one moment to `write`, once more from the start after a lost connection.

        The moment is that of the first look into the snapshot.
        """
        from storage.transfer import Snapshot

        return self._read(lambda connection: write(Snapshot(connection, study_id)), repeatable=True)

    def by_uid(self, uid: str) -> StudyRecord | None:
        """The study of this name among all databases, where it is in this one."""
        from storage.transfer import by_uid

        return self._read(lambda connection: by_uid(connection, uid))

    def take_in(self, parcel: Parcel, place: Callable[[], None]) -> StudyRecord:
        """Writes an exported study, or nothing of it.

        Args:
            place: Puts its files where they belong, as the last thing before the commit; may be called again.

        Raises:
            BadInputError: The database has it already, or a line of it is not what it must be.
        """
        from storage.transfer import take_in

        self._make_optuna_tables()
        tries = itertools.count()
        return self._write(lambda connection: take_in(connection, parcel, place, again=next(tries) > 0))

    # How

    def _write(self, work: Callable[[sa.Connection], Answer], failed: Callable[[], None] = lambda: None) -> Answer:
        @transaction_retry
        def transaction() -> Answer:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except BaseException:
                failed()
                raise

        with translated(self._engine):
            return transaction()

    def _read(self, work: Callable[[sa.Connection], Answer], repeatable: bool = False) -> Answer:
        options: dict[str, Any] = {"writes": False}
        if repeatable and self._engine.dialect.name == "postgresql":
            options["isolation_level"] = "REPEATABLE READ"  # SQLite's transactions are so always

        @transaction_retry
        def transaction() -> Answer:
            with self._engine.connect().execution_options(**options) as connection:
                return work(connection)

        with translated(self._engine):
            return transaction()

    def _optuna_study(self, connection: sa.Connection, claim: Claim) -> OptunaStudy:
        from storage.optuna_tables import OptunaStudy

        # Between two claims another dispatcher may have added trials.
        if self._optuna is None or self._optuna[0] != claim:
            self._optuna = (claim, OptunaStudy(connection, claim.study.id, claim.study.label))
        return self._optuna[1]

    def _forget_optuna(self) -> None:
        self._optuna = None

    def _make_optuna_tables(self) -> None:
        if self._optuna_has_tables:
            return
        from storage.optuna_tables import create_tables

        with translated(self._engine):
            transaction_retry(create_tables)(self._url())
        self._optuna_has_tables = True

    def _url(self) -> str:
        return self._engine.url.render_as_string(hide_password=False)
