"""`self.transaction(using=...)`: writes by Django's ORM and the record of them are one commit, or none."""

import ast
import json
from pathlib import Path

import pytest

from tests.django_project import DjangoProject

SCENARIOS = Path(__file__).with_name("scenarios.py")
NAMES = [
    one.name
    for one in ast.parse(SCENARIOS.read_text(encoding="utf-8")).body
    if isinstance(one, ast.FunctionDef) and ast.unparse(one).count("assert")
    if one.name not in {"refused", "run"}
]
# What needs another project than the example.
SAID = {
    "another_database_is_refused": """
DATABASES["other"] = DATABASES["default"] | {"NAME": "another", "PASSWORD": "hunter2"}
""",
    "a_write_to_another_database_is_refused": """
DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "other.sqlite3"}
""",
    "another_vendor_is_refused": 'DATABASES["mysql"] = {"ENGINE": "django.db.backends.dummy"}',
    "a_deferred_sqlite_is_refused": 'DATABASES["default"].pop("OPTIONS")',
}
SQLITE_ONLY = {"a_deferred_sqlite_is_refused"}


def faults(project: DjangoProject, *names: str) -> dict[str, str]:
    """What went wrong in each of these."""
    (project.folder / "scenarios.py").write_text(SCENARIOS.read_text(encoding="utf-8"), encoding="utf-8")
    found: dict[str, str] = json.loads(project.python(f"import scenarios\nscenarios.run(*{names!r})").splitlines()[-1])
    return found


@pytest.mark.parametrize("part", range(3))
def test_scenarios(migrated: DjangoProject, part: int) -> None:
    """Each in a process of its own; its name says what holds."""
    names = [name for name in NAMES if name not in SAID][part::3]
    assert len(names) > 3
    assert faults(migrated, *names) == {}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_the_databases(migrated: DjangoProject, kind: str, name: str) -> None:
    """What cannot be committed together is refused."""
    if name in SQLITE_ONLY and kind != "sqlite":
        pytest.skip("SQLite's alone")
    migrated.say(SAID[name])
    assert faults(migrated, name) == {}
