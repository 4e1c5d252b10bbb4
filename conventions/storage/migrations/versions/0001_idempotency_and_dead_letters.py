"""Tables of committed effects and of dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0001"
down_revision = None
branch_labels = ("conventions",)
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "conventions_idempotency",
        sa.Column("task", sa.String(255), primary_key=True),
        sa.Column("key_hash", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "conventions_dead_letters",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("task", sa.String(255)),
        sa.Column("queue", sa.String(255)),
        sa.Column("error", sa.String(255), nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("history", sa.JSON, nullable=False),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_conventions_dead_letters_state_last", "conventions_dead_letters", ["state", "last_failed_at"])
    op.create_index("ix_conventions_dead_letters_fingerprint", "conventions_dead_letters", ["fingerprint"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("conventions_dead_letters")
    op.drop_table("conventions_idempotency")
