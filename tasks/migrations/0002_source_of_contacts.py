"""Which row of which file wrote a contact last, so that imports give the same in whatever order their chunks run."""

import sqlalchemy as sa
from alembic import op

revision = "tasks_0002"
down_revision = "tasks_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both columns; contacts of before have no source, so that any file may change them."""
    op.add_column("contacts", sa.Column("source", sa.String(64), nullable=True))
    op.add_column("contacts", sa.Column("source_line", sa.Integer, nullable=True))


def downgrade() -> None:
    """Drop both columns."""
    op.drop_column("contacts", "source_line")
    op.drop_column("contacts", "source")
