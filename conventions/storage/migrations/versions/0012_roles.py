"""Roles of actors, and their permissions."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0012"
down_revision = "conventions_0011"
branch_labels = None
depends_on = None

ROLES, PERMISSIONS = "conventions_actor_roles", "conventions_role_permissions"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        ROLES,
        sa.Column("actor", sa.String(255), primary_key=True),
        sa.Column("role", sa.String(255), primary_key=True),
    )
    op.create_table(
        PERMISSIONS,
        sa.Column("role", sa.String(255), primary_key=True),
        sa.Column("permission", sa.String(255), primary_key=True),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table(PERMISSIONS)
    op.drop_table(ROLES)
