"""Which trials were trained together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "neurosweep_trial",
        sa.Column("pack", sa.Integer(), nullable=True, comment="the lowest number among those of its last pack"),
    )


def downgrade() -> None:
    op.drop_column("neurosweep_trial", "pack")
