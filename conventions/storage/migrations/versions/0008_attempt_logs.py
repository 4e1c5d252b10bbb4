"""The log lines of attempts."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0008"
down_revision = "conventions_0007"
branch_labels = None
depends_on = None

LOGS = "conventions_attempt_logs"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        LOGS,
        sa.Column("message_id", sa.String(255), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.String(255), primary_key=True),
        sa.Column("lines", sa.Text, nullable=False),
        sa.Column("left_out", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_conventions_attempt_logs_at", LOGS, ["at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table(LOGS)
