"""Tables of orders and charges."""

import sqlalchemy as sa
from alembic import op

revision = "shop_0001"
down_revision = None
branch_labels = ("shop",)
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("customer", sa.String(100), nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=True),
        sqlite_autoincrement=True,  # else SQLite gives the id of a deleted order to the next one
    )
    op.create_table(
        "charges",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("order_id", sa.Integer, sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
    )
    op.create_index("ix_charges_order_id", "charges", ["order_id"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("charges")
    op.drop_table("orders")
