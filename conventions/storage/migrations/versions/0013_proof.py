"""Rows of the audit have their place in a chain."""

import sqlalchemy as sa
from alembic import op

revision = "conventions_0013"
down_revision = "conventions_0012"
branch_labels = None
depends_on = None

SEGMENTS, SALTS = "conventions_audit_segments", "conventions_actor_salts"
TABLES = (("conventions_executions", "ended_at"), ("conventions_audit", "at"))
COLUMNS = (("code", sa.String(41)), ("erased", sa.String(24)))
WAITS, NUMBERED = sa.text("number IS NULL"), sa.text("number <> 0")


def upgrade() -> None:
    """Add the columns and the tables. What is there has number 0: it was recorded before there was a chain."""
    for table, at in TABLES:
        if op.get_bind().dialect.name == "sqlite":
            op.add_column(table, sa.Column("number", sa.BigInteger))
            op.execute(sa.update(sa.table(table, sa.column("number"))).values(number=0))
        else:  # by a default for a moment: no row is written anew for it
            op.add_column(table, sa.Column("number", sa.BigInteger, server_default="0"))
            op.alter_column(table, "number", server_default=None)
        for name, kind in COLUMNS:
            op.add_column(table, sa.Column(name, kind))
        op.create_index(_index(table, "waits"), table, [at], sqlite_where=WAITS, postgresql_where=WAITS)
        op.create_index(_index(table, "number"), table, ["number"], sqlite_where=NUMBERED, postgresql_where=NUMBERED)
    op.create_table(
        SEGMENTS,
        sa.Column("chain", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("form", sa.Integer, nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.String(24), nullable=False),
    )
    op.create_table(
        SALTS,
        sa.Column("actor", sa.String(255), primary_key=True),
        sa.Column("salt", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table(SALTS)
    op.drop_table(SEGMENTS)
    for table, _ in TABLES:
        for index in ("number", "waits"):
            op.drop_index(_index(table, index), table)
        for name in ("erased", "code", "number"):
            op.drop_column(table, name)


def _index(table: str, name: str) -> str:
    return f"ix_{table}_{name}"
