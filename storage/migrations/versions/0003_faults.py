"""What survives a fault: a study's name among all databases, its time of work, a trial's deaths, facts set aside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Column by column: SQLite's way of altering more is to make the table anew, and dropping the old one would take the
    # trials of its studies along.
    study = sa.table("neurosweep_study", sa.column("id", sa.Integer), sa.column("uid", sa.String))
    op.add_column(
        "neurosweep_study",
        sa.Column(
            "uid",
            sa.String(32),
            nullable=False,
            server_default=sa.text("''"),
            comment="its name among all databases, for MLflow and files",
        ),
    )
    op.add_column(
        "neurosweep_study",
        sa.Column(
            "worked",
            sa.Double(),
            nullable=False,
            server_default=sa.text("0"),
            comment="seconds of work of all claims before",
        ),
    )
    op.add_column(
        "neurosweep_study",
        sa.Column("notice", sa.Text(), nullable=True, comment="why it stands still, while it does"),
    )
    # The keys under which MLflow knows the studies that are there, and their folders, are of their ids.
    op.execute(sa.update(study).values(uid=sa.cast(study.c.id, sa.String)))
    op.create_index("ix_neurosweep_study_uid", "neurosweep_study", ["uid"], unique=True)
    with op.batch_alter_table("neurosweep_trial") as table:
        table.add_column(
            sa.Column(
                "deaths",
                sa.Integer(),
                nullable=False,
                server_default=sa.text("0"),
                comment="workers that died of it",
            )
        )
        table.add_column(
            sa.Column("memory", sa.BigInteger(), nullable=True, comment="the most that its worker held, in bytes")
        )
    with op.batch_alter_table("neurosweep_outbox") as table:
        table.add_column(
            sa.Column(
                "set_aside",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="failed too often: waits for `sync`",
            )
        )
        table.drop_index("ix_neurosweep_outbox_pending")
        table.create_index(
            "ix_neurosweep_outbox_pending",
            ["study_id", "id"],
            postgresql_where=sa.text("NOT published AND NOT set_aside"),
            sqlite_where=sa.text("published = 0 AND set_aside = 0"),
        )


def downgrade() -> None:
    with op.batch_alter_table("neurosweep_outbox") as table:
        table.drop_index("ix_neurosweep_outbox_pending")
        table.drop_column("set_aside")
        table.create_index(
            "ix_neurosweep_outbox_pending",
            ["study_id", "id"],
            postgresql_where=sa.text("NOT published"),
            sqlite_where=sa.text("published = 0"),
        )
    with op.batch_alter_table("neurosweep_trial") as table:
        table.drop_column("memory")
        table.drop_column("deaths")
    op.drop_index("ix_neurosweep_study_uid", "neurosweep_study")
    for name in ("notice", "worked", "uid"):
        op.drop_column("neurosweep_study", name)
