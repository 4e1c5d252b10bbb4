"""The tables of these tasks: a branch of Alembic of its own, which `db upgrade` brings to its head."""
