"""An index of jobs without an outcome in SQL, and a table of marks: how far SQL has recorded, to compare with Redis."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0004"
down_revision = "conventions_0003"
branch_labels = None
depends_on = None

INDEX, EXECUTIONS, MARKS = "ix_conventions_executions_unended", "conventions_executions", "conventions_marks"
UNENDED = sa.text("kind IN ('hung', 'lost', 'retried')")


def upgrade() -> None:
    """Create the index and the table. The index holds few rows."""
    op.create_index(INDEX, EXECUTIONS, ["ended_at", "id"], sqlite_where=UNENDED, postgresql_where=UNENDED)
    op.create_table(
        MARKS,
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop the index and the table."""
    op.drop_table(MARKS)
    op.drop_index(INDEX, EXECUTIONS)
