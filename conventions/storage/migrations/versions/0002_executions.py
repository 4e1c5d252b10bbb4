"""Add the table of executions. A dead letter gets its message, generation and fence; its history moves to the executions."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0002"
down_revision = "conventions_0001"
branch_labels = None
depends_on = None

EXECUTIONS = "conventions_executions"
LETTERS = "conventions_dead_letters"
INDEXES = {
    "ix_conventions_executions_message": ["message_id"],
    "ix_conventions_executions_ended": ["ended_at"],
    "ix_conventions_executions_task_ended": ["task", "ended_at"],
    "ix_conventions_executions_actor_ended": ["actor", "ended_at"],
}


def upgrade() -> None:
    """Create the executions. Existing letters get generation 0 and no message."""
    op.create_table(
        EXECUTIONS,
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("message_id", sa.String(255), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("task", sa.String(255)),
        sa.Column("queue", sa.String(255)),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("worker", sa.String(255)),
        sa.Column("enqueued_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("runtime", sa.Double),
        sa.Column("error", sa.String(255)),
        sa.Column("error_message", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    for name, columns in INDEXES.items():
        op.create_index(name, EXECUTIONS, columns)
    with op.batch_alter_table(LETTERS) as letters:  # SQLite alters a table by copying it
        letters.add_column(sa.Column("message", sa.Text))
        letters.add_column(sa.Column("generation", sa.Integer))
        letters.add_column(sa.Column("fence", sa.BigInteger))
        letters.drop_column("history")  # it is empty in every letter so far
    op.execute(f"UPDATE {LETTERS} SET generation = 0, fence = 0")  # noqa: S608  # a constant
    with op.batch_alter_table(LETTERS) as letters:
        letters.alter_column("generation", existing_type=sa.Integer, nullable=False)
        letters.alter_column("fence", existing_type=sa.BigInteger, nullable=False)


def downgrade() -> None:
    """Drop the executions, and the message of each letter."""
    with op.batch_alter_table(LETTERS) as letters:
        letters.add_column(sa.Column("history", sa.JSON))
        letters.drop_column("fence")
        letters.drop_column("generation")
        letters.drop_column("message")
    op.execute(f"UPDATE {LETTERS} SET history = '[]'")  # noqa: S608  # a constant
    with op.batch_alter_table(LETTERS) as letters:
        letters.alter_column("history", existing_type=sa.JSON, nullable=False)
    op.drop_table(EXECUTIONS)
