"""The tables, one schema for SQLite and PostgreSQL. Names begin with ``neurosweep_``, so they can't meet Optuna's or
MLflow's; a change here needs a migration in ``storage/migrations/versions``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from storage.records import FactKind, Probe, StudyState, TrialState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware moment in UTC. Neither database is asked to keep a zone: the column holds naive UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Words(TypeDecorator[str]):
    """Text of any origin, such as an exception's message: what a database can't hold (NUL, halves of characters) is
    replaced, as no batch of results may fail for it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return (
            None
            if value is None
            else value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
        )


def _one_of(column: str, words: type[StudyState] | type[TrialState] | type[FactKind] | type[Probe]) -> CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


# Leases are seconds since 1970 on the database's clock, so that a machine's own clock does not matter.

study = Table(
    "neurosweep_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("number", Integer, nullable=False, comment="the N of name@N"),
    Column(
        "uid",
        String(32),
        nullable=False,
        server_default=text("''"),
        comment="its name among all databases, for MLflow and files",
    ),
    Column("spec", JSON, nullable=False, comment="the study file with every default filled in"),
    Column("text", Text, nullable=False, comment="the study file as it was written"),
    Column("trials", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("error", Words),
    Column("result", JSON),
    Column("split_hash", String(64)),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("dispatcher", String(255)),
    Column("worked", Double, nullable=False, server_default=text("0"), comment="seconds of work of all claims before"),
    Column("notice", Words, comment="why it stands still, while it does"),
    Column("token", Integer, nullable=False, server_default=text("0"), comment="fencing token: grows with every claim"),
    Column("leased_until", Double),
    Column("publisher", String(255)),
    Column("publisher_token", Integer, nullable=False, server_default=text("0")),
    Column("published_until", Double, comment="end of the publisher's lease"),
    Column("tree", String(32), comment="uid of the first study of its tree of rounds"),
    Column("round", Integer, comment="which round of the tree it is, from 1"),
    Column("rounds", Integer, comment="how many rounds the tree has at most"),
    Column("sealed", Boolean, nullable=False, server_default=false(), comment="its test split stays shut at its end"),
    UniqueConstraint("name", "number"),
    Index(None, "uid", unique=True),
    _one_of("state", StudyState),
    # The queue: what is claimable, oldest first.
    Index(None, "state", "id"),
)

trial = Table(
    "neurosweep_trial",
    metadata,
    Column("study_id", ForeignKey("neurosweep_study.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("params", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("seed", String(20), nullable=False, comment="decimal: up to 2**63, past what JSON readers keep exactly"),
    Column("train", Double),
    Column("validation", Double),
    Column("epochs", Integer, nullable=False, server_default=text("0")),
    Column("best_epoch", Integer, nullable=False, server_default=text("0")),
    Column("seconds", Double, nullable=False, server_default=text("0")),
    Column("weights", BigInteger, nullable=False, server_default=text("0"), comment="past 2**31 in wide networks"),
    Column("worker", String(255)),
    Column("error", Words),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("pack", Integer, comment="the lowest number among those of its last pack"),
    Column("deaths", Integer, nullable=False, server_default=text("0"), comment="workers that died of it"),
    Column("memory", BigInteger, comment="the most that its worker held, in bytes"),
    Column("would_stop", Integer, comment="the epoch after which the pruner would have ended it: an audit"),
    _one_of("state", TrialState),
)

epoch = Table(
    "neurosweep_epoch",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    # A figure that is not finite is NULL.
    Column("train_loss", Double),
    Column("train_metric", Double),
    Column("validation_loss", Double),
    Column("validation_metric", Double),
    Column("seconds", Double, nullable=False),
    Column("at", Moment, nullable=False, comment="the time stamp under which MLflow gets it"),
)

outbox = Table(
    "neurosweep_outbox",
    metadata,
    Column("id", Integer, primary_key=True, comment="the order in which facts are published"),
    Column("study_id", ForeignKey("neurosweep_study.id", ondelete="CASCADE"), nullable=False),
    Column("key", String(255), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("trial", Integer),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("reason", Words, comment="why the last attempt failed"),
    Column("not_before", Double, nullable=False, server_default=text("0")),
    Column("published", Boolean, nullable=False, server_default=false()),
    Column("set_aside", Boolean, nullable=False, server_default=false(), comment="failed too often: waits for `sync`"),
    _one_of("kind", FactKind),
    # What is still to publish: stays small however long the history is.
    Index(
        "ix_neurosweep_outbox_pending",
        "study_id",
        "id",
        postgresql_where=text("NOT published AND NOT set_aside"),
        sqlite_where=text("published = 0 AND set_aside = 0"),
    ),
)

mlflow_run = Table(
    "neurosweep_mlflow_run",
    metadata,
    Column("study_id", ForeignKey("neurosweep_study.id", ondelete="CASCADE"), primary_key=True),
    Column("experiment_id", String(64), nullable=False),
    Column("run_id", String(64), nullable=False, comment="the study's parent run"),
)

extra_run = Table(
    "neurosweep_extra_run",
    metadata,
    Column("study_id", ForeignKey("neurosweep_study.id", ondelete="CASCADE"), primary_key=True),
    Column("probe", String(16), primary_key=True),
    Column("trial", Integer, primary_key=True, comment="whose settings it began with"),
    Column("amount", Double, primary_key=True, comment="a share, a factor, or the number of a seed"),
    Column("settings", JSON, nullable=False),
    Column("seed", String(20), nullable=False, comment="decimal, as a trial's"),
    # A figure that is not finite is NULL, in the curve null.
    Column("train", Double),
    Column("validation", Double),
    Column("rows", Integer, nullable=False, comment="train rows that it saw"),
    Column("epochs", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("weights", BigInteger, nullable=False),
    Column("curve", JSON, nullable=False, comment="validation metric after each epoch"),
    Column("error", Words),
    Column("at", Moment, nullable=False, comment="when it ended"),
    _one_of("probe", Probe),
)

opening = Table(
    "neurosweep_opening",
    metadata,
    Column("study_id", ForeignKey("neurosweep_study.id", ondelete="CASCADE"), primary_key=True),
    Column("at", Moment, primary_key=True),
    Column("trial", Integer),
    Column("reason", Words, nullable=False),
)
