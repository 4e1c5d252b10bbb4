"""The last error of a redrive that has ended."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0011"
down_revision = "conventions_0010"
branch_labels = None
depends_on = None

REDRIVES = "conventions_redrives"


def upgrade() -> None:
    """Add the column. Empty: nothing failed, or it ended before."""
    op.add_column(REDRIVES, sa.Column("last_error", sa.Text))


def downgrade() -> None:
    """Drop it."""
    op.drop_column(REDRIVES, "last_error")
