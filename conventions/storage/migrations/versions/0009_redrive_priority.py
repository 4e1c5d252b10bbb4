"""How urgent the messages of a redrive are."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0009"
down_revision = "conventions_0008"
branch_labels = None
depends_on = None

REDRIVES = "conventions_redrives"


def upgrade() -> None:
    """Add the column. Empty: as they were sent."""
    op.add_column(REDRIVES, sa.Column("priority", sa.String(16)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column(REDRIVES, "priority")
