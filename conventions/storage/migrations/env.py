"""Alembic's environment: migrates over the connection that `run.upgrade` passes in."""

from alembic import context

from conventions.storage.migrations.run import VERSION_TABLE

# All in one transaction, also on SQLite, for which Alembic would make one of each migration: between two of them another process would begin
# with the second, too.
context.configure(
    connection=context.config.attributes["connection"], version_table=VERSION_TABLE, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
