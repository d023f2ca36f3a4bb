"""What survives a fault: a study's name among all databases, its time of work, a trial's deaths, facts set aside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    study = sa.table("neurosweep_study", sa.column("id", sa.Integer), sa.column("uid", sa.String))
    with op.batch_alter_table("neurosweep_study") as table:
        table.add_column(
            sa.Column("uid", sa.String(32), nullable=True, comment="its name among all databases, for MLflow and files")
        )
        table.add_column(
            sa.Column(
                "worked",
                sa.Double(),
                nullable=False,
                server_default=sa.text("0"),
                comment="seconds of work of all claims before",
            )
        )
        table.add_column(sa.Column("notice", sa.Text(), nullable=True, comment="why it stands still, while it does"))
    # The keys under which MLflow knows the studies that are there, and their folders, are of their ids.
    op.execute(sa.update(study).values(uid=sa.cast(study.c.id, sa.String)))
    with op.batch_alter_table("neurosweep_study") as table:
        table.alter_column(
            "uid",
            existing_type=sa.String(32),
            nullable=False,
            existing_comment="its name among all databases, for MLflow and files",
        )
        table.create_unique_constraint("uq_neurosweep_study_uid", ["uid"])
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
    with op.batch_alter_table("neurosweep_study") as table:
        table.drop_constraint("uq_neurosweep_study_uid", type_="unique")
        for name in ("notice", "worked", "uid"):
            table.drop_column(name)
