"""Migrations, on SQLite and PostgreSQL: they make the models, once, and leave a team's own alone."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from conventions.storage.database import Database
from conventions.storage.migrations import run
from conventions.storage.tables import Base, DeadLetterRow, ExecutionRow
from tests.databases import FORKS, database, effect, keys, write  # noqa: F401  # database is a fixture
from tests.support import patient
from tests.workers import ROOT, Installation

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


def test_the_index_of_what_has_not_ended_holds_nothing_else(database: Database) -> None:
    """The class does not say so: that would load the dialects of both databases."""
    (index,) = [
        one
        for one in inspect(database.engine).get_indexes(ExecutionRow.__tablename__)
        if one["name"] == "ix_conventions_executions_unended"
    ]
    where = next(value for name, value in index["dialect_options"].items() if name.endswith("_where"))
    assert all(kind in str(where) for kind in ("hung", "lost", "retried"))


def test_the_migrations_can_be_taken_back(database: Database) -> None:
    """Down to nothing, and up again."""
    migrate(database, command.downgrade, "base")
    assert tables(database) == {run.VERSION_TABLE}
    database.upgrade()
    assert tables(database) == {run.VERSION_TABLE, *Base.metadata.tables}


def migrate(database: Database, move: Callable[[Config, str], None], revision: str) -> None:
    """Move a database to a revision, up or down."""
    with database.engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(run.__file__).parent))
        config.attributes["connection"] = connection
        move(config, revision)
        connection.commit()


KINDS = {
    "attempts": "integer", "arguments": "json", "headers": "json", "history": "json",
    "first_failed_at": "timestamptz", "last_failed_at": "timestamptz",
}  # fmt: skip
LETTER: dict[str, Any] = {
    "id": "m1", "task": "Send", "queue": None, "error": "BusinessError", "error_message": "é", "traceback": "t",
    "fingerprint": "f", "attempts": 5, "actor": "u-42", "state": "redriven", "arguments": '{"user_id": 7}',
    "headers": "{}", "history": "[]", "first_failed_at": "2026-01-05 12:00:00+00:00",
    "last_failed_at": "2026-01-06 12:00:00+00:00",
}  # fmt: skip


LATER = ("redrive_id", "answer", "answered_at")  # columns of later versions


def test_letters_survive_each_step_and_the_way_back(url: str) -> None:
    """Those of the version before are of generation 0 and have no message; the way back keeps them, too."""
    database = Database(url)
    migrate(database, command.upgrade, "conventions_0001")
    names = ", ".join(LETTER)
    with database.session() as session:
        values = ", ".join(f":{name}" for name in LETTER)
        if not database.is_sqlite:  # its driver sends text as text
            values = ", ".join(f"CAST(:{name} AS {KINDS.get(name, 'text')})" for name in LETTER)
        moments = {name: LETTER[name][:19] + ".000000" for name in ("first_failed_at", "last_failed_at")}
        session.execute(
            text(f"INSERT INTO conventions_dead_letters ({names}) VALUES ({values})"),
            LETTER | (moments if database.is_sqlite else {}),
        )
    migrate(database, command.upgrade, "conventions_0002")
    columns = [column for column in DeadLetterRow.__table__.columns if column.name not in LATER]
    for _ in range(2):
        with database.session() as session:
            (letter,) = session.execute(select(*columns)).all()
            assert (letter.id, letter.state, letter.attempts, letter.error_message) == ("m1", "redriven", 5, "é")
            assert (letter.arguments, letter.headers) == ({"user_id": 7}, {})
            assert letter.first_failed_at == datetime(2026, 1, 5, 12, tzinfo=UTC)
            assert (letter.generation, letter.fence, letter.message) == (0, 0, None)
        migrate(database, command.downgrade, "conventions_0001")
        with database.session() as session:
            row = session.execute(text("SELECT id, history FROM conventions_dead_letters")).one()
            assert tuple(row) in (("m1", "[]"), ("m1", []))
        assert "conventions_executions" not in tables(database)
        migrate(database, command.upgrade, "conventions_0002")
    indexes = {index["name"] for index in inspect(database.engine).get_indexes("conventions_dead_letters")}
    assert indexes == {"ix_conventions_dead_letters_state_last", "ix_conventions_dead_letters_fingerprint"}
    migrate(database, command.upgrade, "conventions_0005")
    migrate(database, command.downgrade, "conventions_0003")
    migrate(database, command.upgrade, "conventions_0005")
    with database.session() as session:
        kept = session.scalars(select(DeadLetterRow)).one()
        assert (kept.id, kept.state, kept.redrive_id, kept.answer) == ("m1", "redriven", None, None)
    migrate(database, command.downgrade, "conventions_0002")
    with database.session() as session:
        assert session.execute(select(*columns)).one().arguments == {"user_id": 7}
    assert {index["name"] for index in inspect(database.engine).get_indexes("conventions_dead_letters")} == indexes
    database.dispose()


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
        child.join(patient(30))
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert tables(Database(url)) == {run.VERSION_TABLE, *Base.metadata.tables}


FAULTY = """
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "team_0002", "team_0001", None, None


def upgrade():
    op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))
    raise RuntimeError("no")
"""


def test_a_migration_that_fails_leaves_all_as_it_was(url: str, tmp_path: Path) -> None:
    """All that are missing are one transaction. So no other process sees the half of them, and does the rest at the same time."""
    (tmp_path / "0001_contacts.py").write_text(FURTHER, encoding="utf-8")
    (tmp_path / "0002_orders.py").write_text(FAULTY, encoding="utf-8")
    database = Database(url, [tmp_path])
    with pytest.raises(RuntimeError, match="no"):
        database.upgrade()
    assert tables(database) == set()
    database.dispose()


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


@pytest.mark.thorough
def test_the_versions_of_the_page(installation: Installation) -> None:
    """As `docs/operations.md` writes them, by the command."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (version,) = re.findall(r"^```python\n# mine/migrations/0001_orders\.py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    folder = installation.folder / "mine" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("from conventions import create_app\n\napp = create_app('mine')\n")
    (folder / "0001_orders.py").write_text(version, encoding="utf-8")
    for _ in range(2):
        ended = installation.run("db", "upgrade", app="mine")
        assert ended.returncode == 0, ended.stdout
    database = Database(str(installation.settings["database_url"]))
    assert "orders" in tables(database)
    database.dispose()


def test_every_table_has_the_package_s_prefix() -> None:
    """They lie in the business database, beside the team's own."""
    assert all(name.startswith("conventions_") for name in (*Base.metadata.tables, run.VERSION_TABLE))
    assert DeadLetterRow.__tablename__ in Base.metadata.tables
