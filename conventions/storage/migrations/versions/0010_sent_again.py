"""How many letters of a redrive a later one has sent again."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0010"
down_revision = "conventions_0009"
branch_labels = None
depends_on = None

REDRIVES = "conventions_redrives"


def upgrade() -> None:
    """Add the column. A recorder of the release before writes rows without it."""
    op.add_column(REDRIVES, sa.Column("sent_again", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop it."""
    op.drop_column(REDRIVES, "sent_again")
