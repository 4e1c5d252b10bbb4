"""Run the Alembic migrations of this package and of the task packages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, column, delete, func, select, table, text

VERSION_TABLE = "conventions_alembic_version"  # the business database may have an Alembic of its own
_LOCK = 7_203_114_551  # any number that no other program uses for a lock in the same database


BRANCH = "conventions"


def upgrade(engine: Engine, further: Sequence[Path], version: str = "heads") -> None:
    """Bring every branch to its head, or one to a version, unless it is at a later one.

    Args:
        engine: the database.
        further: folders of versions beside this package's; each is an independent Alembic branch.
        version: the version.
    """
    with _locked(engine, further) as config:
        command.upgrade(config, version)


def downgrade(engine: Engine) -> None:
    """Take back all versions of this package."""
    with _locked(engine, ()) as config:
        command.downgrade(config, f"{BRANCH}@base")


def forget_versions(connection: Connection) -> bool:
    """Note the versions of this package as not made. Returns whether those of task packages are noted there, too."""
    here = Path(__file__).parent
    ours = [
        one.revision for one in ScriptDirectory(str(here), version_locations=[str(here / "versions")]).walk_revisions()
    ]
    versions = table(VERSION_TABLE, column("version_num"))
    connection.execute(delete(versions).where(versions.c.version_num.in_(ours)))
    return bool(connection.scalar(select(func.count()).select_from(versions)))


@contextmanager
def _locked(engine: Engine, further: Sequence[Path]) -> Iterator[Config]:
    """Alembic's configuration, on a connection which no other process migrates meanwhile."""
    here = Path(__file__).parent
    config = Config()
    config.set_main_option("script_location", str(here))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, [here / "versions", *further])))
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # several containers may start at once
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            connection.commit()
        config.attributes["connection"] = connection
        yield config
        connection.commit()
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()
