"""Migrations, on SQLite and PostgreSQL: they make the models, once, and leave a team's own alone."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import os
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from conventions.database import Base, Database, DeadLetterRow
from conventions.migrations import run
from tests.databases import FORKS, database, effect, keys, write  # noqa: F401  # database is a fixture

FURTHER = '''
"""A table of a team."""
import sqlalchemy as sa
from alembic import op

revision = "team_0001"
down_revision = None
branch_labels = ("team",)
depends_on = None


def upgrade():
    op.create_table("contacts", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("contacts")
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'x.sqlite3'}"
    return str(request.getfixturevalue("postgres_url"))


def tables(database: Database) -> set[str]:
    """The tables that are there."""
    found = set(inspect(database.engine).get_table_names())
    database.dispose()
    return found


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    """Alembic finds no difference between the migrated database and the classes."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": run.VERSION_TABLE, "compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrations_can_be_taken_back(database: Database) -> None:
    """Down to nothing, and up again."""
    folder = Path(run.__file__).parent
    with database.engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    assert tables(database) == {run.VERSION_TABLE}
    database.upgrade()
    assert tables(database) == {run.VERSION_TABLE, *Base.metadata.tables}


def test_migrating_again_changes_nothing(database: Database) -> None:
    """Rows stay."""
    write(database, "k")
    database.upgrade()
    assert keys(database) == {"k"}


def _migrate_in_child(url: str) -> None:
    Database(url).upgrade()
    os._exit(0)


@FORKS
def test_several_may_migrate_at_once(url: str) -> None:
    """Containers that start together, or `up` twice: one migrates, the others find it done."""
    children = [get_context("fork").Process(target=_migrate_in_child, args=(url,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert tables(Database(url)) == {run.VERSION_TABLE, *Base.metadata.tables}


def test_a_team_has_migrations_of_its_own(url: str, tmp_path: Path) -> None:
    """A further folder is a branch of its own; the team's own Alembic table is left alone."""
    folder = tmp_path / "with blank" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0001_contacts.py").write_text(FURTHER, encoding="utf-8")
    plain = Database(url)
    plain.upgrade()
    with plain.session() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        session.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    plain.dispose()
    database = Database(url, [folder])
    database.upgrade()
    database.upgrade()
    assert {"contacts", *Base.metadata.tables} <= tables(database)
    with database.session() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "theirs"
    database.dispose()


def test_every_table_has_the_package_s_prefix() -> None:
    """They lie in the business database, beside the team's own."""
    assert all(name.startswith("conventions_") for name in (*Base.metadata.tables, run.VERSION_TABLE))
    assert DeadLetterRow.__tablename__ in Base.metadata.tables
