"""Tables of redrives, of the audit and of notes on groups. Indexes for a million dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0003"
down_revision = "conventions_0002"
branch_labels = None
depends_on = None

LETTERS, EXECUTIONS, REDRIVES = "conventions_dead_letters", "conventions_executions", "conventions_redrives"
AUDIT, NOTES = "conventions_audit", "conventions_dead_letter_notes"
OLD_INDEXES = {
    "ix_conventions_dead_letters_state_last": ["state", "last_failed_at"],
    "ix_conventions_dead_letters_fingerprint": ["fingerprint"],
}
INDEXES = {
    "ix_conventions_dead_letters_state_last": ["state", "last_failed_at", "id"],
    "ix_conventions_dead_letters_group": ["state", "fingerprint", "last_failed_at", "first_failed_at"],
    "ix_conventions_dead_letters_task": ["state", "task", "last_failed_at"],
    "ix_conventions_dead_letters_redrive": ["redrive_id", "state"],
}
KEY_INDEX = "ix_conventions_executions_key"


def upgrade() -> None:
    """Create the tables and indexes. Existing letters belong to no redrive."""
    op.add_column(LETTERS, sa.Column("redrive_id", sa.String(36)))
    for name in OLD_INDEXES:
        op.drop_index(name, LETTERS)
    for name, columns in INDEXES.items():
        op.create_index(name, LETTERS, columns)
    op.create_index(KEY_INDEX, EXECUTIONS, ["key"])
    _create_redrives()
    _create_audit()


def _create_redrives() -> None:
    op.create_table(
        NOTES,
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        REDRIVES,
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("selection", sa.JSON, nullable=False),
        sa.Column("canary", sa.Integer, nullable=False),
        sa.Column("rate", sa.Double, nullable=False),
        sa.Column("stop_at", sa.Double, nullable=False),
        sa.Column("again", sa.Boolean, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("sent", sa.Integer, nullable=False),
        sa.Column("succeeded", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_conventions_redrives_created", REDRIVES, ["created_at"])


def _create_audit() -> None:
    op.create_table(
        AUDIT,
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
    )
    op.create_index("ix_conventions_audit_at", AUDIT, ["at"])
    op.create_index("ix_conventions_audit_target", AUDIT, ["target", "at"])


def downgrade() -> None:
    """Drop the tables and the new indexes."""
    op.drop_table(AUDIT)
    op.drop_table(REDRIVES)
    op.drop_table(NOTES)
    op.drop_index(KEY_INDEX, EXECUTIONS)
    for name in INDEXES:
        op.drop_index(name, LETTERS)
    op.drop_column(LETTERS, "redrive_id")
    for name, columns in OLD_INDEXES.items():
        op.create_index(name, LETTERS, columns)
