"""The SQL schema, step by step (Alembic)."""
