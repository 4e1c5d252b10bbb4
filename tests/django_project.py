"""The example project of Django in a folder of the test's own, on SQLite or PostgreSQL."""

import shutil
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from tests import prepared_python
from tests.support import patient
from tests.workers import ROOT, Installation

EXAMPLE = ROOT / "examples" / "django"
SETUP = "import django\ndjango.setup()\n"


class DjangoProject(Installation):
    """A copy of `examples/django`.

    Args:
        folder: where.
        postgres_url: the address of an empty database; without it SQLite.
        settings: of ours, as the environment has them.
    """

    def __init__(self, folder: Path, postgres_url: str | None = None, **settings: Any) -> None:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
        super().__init__(folder, ["orders.jobs"], **settings)
        self.variables = {"DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONDONTWRITEBYTECODE": "1"}
        if postgres_url is not None:
            url = make_url(postgres_url)
            self.variables |= {
                "POSTGRES_HOST": str(url.host or url.query["host"]),
                "POSTGRES_DB": str(url.database),
                "POSTGRES_USER": str(url.username),
                "POSTGRES_PASSWORD": str(url.password or ""),
            }

    @property
    def environment(self) -> dict[str, str]:
        """With Django's settings."""
        return super().environment | self.variables

    def say(self, text: str) -> None:
        """Add lines to the settings."""
        with (self.folder / "shop" / "settings.py").open("a", encoding="utf-8") as settings:
            settings.write(f"\n{text}\n")

    def manage(self, *arguments: str, fails: bool = False) -> str:
        """Run `manage.py`; returns what it says."""
        command = [sys.executable, "manage.py", *arguments]
        ended = prepared_python.run(command, cwd=self.folder, env=self.environment, timeout=patient(60))
        assert (ended.returncode != 0) is fails, ended.stdout
        return ended.stdout

    def python(self, program: str, **variables: str) -> str:
        """Run a program to its end, with Django set up; returns what it prints."""
        return super().python(SETUP + program, **variables)
