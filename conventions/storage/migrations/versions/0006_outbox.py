"""The outbox: messages that wait until the transaction that has written them is committed, and then for the relay."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0006"
down_revision = "conventions_0005"
branch_labels = None
depends_on = None

OUTBOX, DUE = "conventions_outbox", "ix_conventions_outbox_due"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        OUTBOX,
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("application", sa.String(255), nullable=False),
        sa.Column("task", sa.String(255), nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("fault", sa.Text),
    )
    op.create_index(DUE, OUTBOX, ["application", "due_at", "written_at"])


def downgrade() -> None:
    """Drop the table, with what waits in it."""
    op.drop_table(OUTBOX)
