"""The first schema: studies, trials, epochs, the outbox, and where MLflow's runs are.

Going back drops every study.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "neurosweep_epoch",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("train_loss", sa.Double(), nullable=True),
        sa.Column("train_metric", sa.Double(), nullable=True),
        sa.Column("validation_loss", sa.Double(), nullable=True),
        sa.Column("validation_metric", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False, comment="the time stamp under which MLflow gets it"),
        sa.PrimaryKeyConstraint("study_id", "trial", "epoch", name=op.f("pk_neurosweep_epoch")),
    )
    op.create_table(
        "neurosweep_study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="the N of name@N"),
        sa.Column("spec", sa.JSON(), nullable=False, comment="the study file with every default filled in"),
        sa.Column("text", sa.Text(), nullable=False, comment="the study file as it was written"),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("split_hash", sa.String(length=64), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("dispatcher", sa.String(length=255), nullable=True),
        sa.Column(
            "token",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="fencing token: grows with every claim",
        ),
        sa.Column("leased_until", sa.Double(), nullable=True),
        sa.Column("publisher", sa.String(length=255), nullable=True),
        sa.Column("publisher_token", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("published_until", sa.Double(), nullable=True, comment="end of the publisher's lease"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'stopped', 'finished', 'failed', 'cancelled')",
            name=op.f("ck_neurosweep_study_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_neurosweep_study")),
        sa.UniqueConstraint("name", "number", name=op.f("uq_neurosweep_study_name_number")),
    )
    op.create_index(op.f("ix_neurosweep_study_state_id"), "neurosweep_study", ["state", "id"], unique=False)
    op.create_table(
        "neurosweep_mlflow_run",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False, comment="the study's parent run"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["neurosweep_study.id"], name=op.f("fk_neurosweep_mlflow_run_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_neurosweep_mlflow_run")),
    )
    op.create_table(
        "neurosweep_outbox",
        sa.Column("id", sa.Integer(), nullable=False, comment="the order in which facts are published"),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why the last attempt failed"),
        sa.Column("not_before", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("published", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('study_started', 'trial_ended', 'study_ended')", name=op.f("ck_neurosweep_outbox_kind")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["neurosweep_study.id"], name=op.f("fk_neurosweep_outbox_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_neurosweep_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_neurosweep_outbox_key")),
    )
    op.create_index(
        "ix_neurosweep_outbox_pending",
        "neurosweep_outbox",
        ["study_id", "id"],
        unique=False,
        postgresql_where=sa.text("NOT published"),
        sqlite_where=sa.text("published = 0"),
    )
    op.create_table(
        "neurosweep_trial",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column(
            "seed",
            sa.String(length=20),
            nullable=False,
            comment="decimal: up to 2**63, past what JSON readers keep exactly",
        ),
        sa.Column("train", sa.Double(), nullable=True),
        sa.Column("validation", sa.Double(), nullable=True),
        sa.Column("epochs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("best_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "weights",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="past 2**31 in wide networks",
        ),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'complete', 'pruned', 'failed')", name=op.f("ck_neurosweep_trial_state")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["neurosweep_study.id"], name=op.f("fk_neurosweep_trial_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "number", name=op.f("pk_neurosweep_trial")),
    )


def downgrade() -> None:
    for table in ("trial", "outbox", "mlflow_run", "epoch", "study"):
        op.drop_table(f"neurosweep_{table}")
