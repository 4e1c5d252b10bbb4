"""What the executions say of an attempt beside its outcome: how long it waited, which release ran it, and the cause of its failure."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0007"
down_revision = "conventions_0006"
branch_labels = None
depends_on = None

EXECUTIONS = "conventions_executions"
COLUMNS = (("wait", sa.Double), ("release", sa.String(255)), ("fingerprint", sa.String(64)))


def upgrade() -> None:
    """Add the columns. They are empty for what was recorded before."""
    for name, kind in COLUMNS:
        op.add_column(EXECUTIONS, sa.Column(name, kind))


def downgrade() -> None:
    """Drop them."""
    for name, _ in COLUMNS:
        op.drop_column(EXECUTIONS, name)
