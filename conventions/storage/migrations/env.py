"""Alembic's environment: migrates over the connection that `run.upgrade` passes in."""

from alembic import context

from conventions.storage.migrations.run import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
