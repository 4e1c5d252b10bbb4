"""What the journal recorded for the letters of a redrive, and why a redrive cannot go on."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0005"
down_revision = "conventions_0004"
branch_labels = None
depends_on = None

LETTERS, REDRIVES = "conventions_dead_letters", "conventions_redrives"
BY_REDRIVE, BY_ANSWER = "ix_conventions_dead_letters_redrive", "ix_conventions_dead_letters_answered"


def upgrade() -> None:
    """Add the columns. A letter on its way has no answer until the journal records one."""
    op.add_column(LETTERS, sa.Column("answer", sa.String(32)))
    op.add_column(LETTERS, sa.Column("answered_at", sa.DateTime(timezone=True)))
    op.drop_index(BY_REDRIVE, LETTERS)
    op.create_index(BY_REDRIVE, LETTERS, ["redrive_id", "state", "answer"])
    op.create_index(BY_ANSWER, LETTERS, ["redrive_id", "answered_at"])
    for name in ("fault", "left_error"):
        op.add_column(REDRIVES, sa.Column(name, sa.Text))
    op.add_column(REDRIVES, sa.Column("paced_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop the columns."""
    for name in ("paced_at", "left_error", "fault"):
        op.drop_column(REDRIVES, name)
    op.drop_index(BY_ANSWER, LETTERS)
    op.drop_index(BY_REDRIVE, LETTERS)
    op.create_index(BY_REDRIVE, LETTERS, ["redrive_id", "state"])
    for name in ("answered_at", "answer"):
        op.drop_column(LETTERS, name)
