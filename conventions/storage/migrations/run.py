"""Run the Alembic migrations of this package and of the task packages."""

from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

VERSION_TABLE = "conventions_alembic_version"  # the business database may have an Alembic of its own
_LOCK = 7_203_114_551  # any number that no other program uses for a lock in the same database


def upgrade(engine: Engine, further: Sequence[Path]) -> None:
    """Bring every branch to its head.

    Args:
        engine: the database.
        further: folders of versions beside this package's; each is an independent Alembic branch.
    """
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
        command.upgrade(config, "heads")
        connection.commit()
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()
