"""What is remembered beside the search: extra runs, looks at the test split, audits, and rounds of studies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

KINDS = ("study_started", "trial_ended", "study_ended")
NEW_KINDS = ("extra_run_ended", "page_written")


def upgrade() -> None:
    op.create_table(
        "neurosweep_extra_run",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("probe", sa.String(16), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False, comment="whose settings it began with"),
        sa.Column("amount", sa.Double(), nullable=False, comment="a share, a factor, or the number of a seed"),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("seed", sa.String(20), nullable=False, comment="decimal, as a trial's"),
        sa.Column("train", sa.Double(), nullable=True),
        sa.Column("validation", sa.Double(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=False, comment="train rows that it saw"),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("weights", sa.BigInteger(), nullable=False),
        sa.Column("curve", sa.JSON(), nullable=False, comment="validation metric after each epoch"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False, comment="when it ended"),
        sa.CheckConstraint(
            "probe IN ('rows', 'neurons', 'epochs', 'seed')", name=op.f("ck_neurosweep_extra_run_probe")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["neurosweep_study.id"], name=op.f("fk_neurosweep_extra_run_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "probe", "trial", "amount", name=op.f("pk_neurosweep_extra_run")),
    )
    op.create_table(
        "neurosweep_opening",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["neurosweep_study.id"], name=op.f("fk_neurosweep_opening_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "at", name=op.f("pk_neurosweep_opening")),
    )
    # Column by column: SQLite would make the table anew, and dropping the old one would take its trials along.
    op.add_column(
        "neurosweep_study",
        sa.Column("tree", sa.String(32), nullable=True, comment="uid of the first study of its tree of rounds"),
    )
    op.add_column(
        "neurosweep_study",
        sa.Column("round", sa.Integer(), nullable=True, comment="which round of the tree it is, from 1"),
    )
    op.add_column(
        "neurosweep_study",
        sa.Column("rounds", sa.Integer(), nullable=True, comment="how many rounds the tree has at most"),
    )
    op.add_column(
        "neurosweep_study",
        sa.Column(
            "sealed",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="its test split stays shut at its end",
        ),
    )
    op.add_column(
        "neurosweep_trial",
        sa.Column(
            "would_stop",
            sa.Integer(),
            nullable=True,
            comment="the epoch after which the pruner would have ended it: an audit",
        ),
    )
    _allow((*KINDS, *NEW_KINDS))


def downgrade() -> None:
    kind = sa.column("kind", sa.String)
    op.execute(sa.delete(sa.table("neurosweep_outbox", kind)).where(kind.in_(NEW_KINDS)))
    _allow(KINDS)
    op.drop_column("neurosweep_trial", "would_stop")
    for name in ("sealed", "rounds", "round", "tree"):
        op.drop_column("neurosweep_study", name)
    op.drop_table("neurosweep_opening")
    op.drop_table("neurosweep_extra_run")


def _allow(kinds: tuple[str, ...]) -> None:
    """Changes which kinds of facts the outbox takes."""
    name = op.f("ck_neurosweep_outbox_kind")
    # SQLite makes this table anew, to which no other one refers.
    with op.batch_alter_table("neurosweep_outbox") as table:
        table.drop_constraint(name, type_="check")
        table.create_check_constraint(name, f"kind IN ({', '.join(map(repr, kinds))})")
