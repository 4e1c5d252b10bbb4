"""`self.transaction(using=...)`: writes by Django's ORM and the record of them are one commit, or none."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.django_project import DjangoProject

SCENARIOS = Path(__file__).with_name("scenarios.py")
NAMES = [
    one.name
    for one in ast.parse(SCENARIOS.read_text(encoding="utf-8")).body
    if isinstance(one, ast.FunctionDef) and ast.unparse(one).count("assert")
    if one.name != "refused"
]
# What needs another project than the example.
SAID = {
    "another_database_is_refused": """
DATABASES["other"] = DATABASES["default"] | {"NAME": "another", "PASSWORD": "hunter2"}
""",
    "another_vendor_is_refused": 'DATABASES["mysql"] = {"ENGINE": "django.db.backends.dummy"}',
    "a_deferred_sqlite_is_refused": 'DATABASES["default"].pop("OPTIONS")',
}
SQLITE_ONLY = {"a_deferred_sqlite_is_refused"}


@pytest.mark.parametrize("name", NAMES)
def test_scenario(
    request: pytest.FixtureRequest, shared_projects: Callable[[str], DjangoProject], kind: str, name: str
) -> None:
    """Each in a process of its own; what it says is the name of the test."""
    if name in SQLITE_ONLY and kind != "sqlite":
        pytest.skip("SQLite's alone")
    if name in SAID:
        project: DjangoProject = request.getfixturevalue("migrated")
        project.say(SAID[name])
    else:
        project = shared_projects(kind)
    (project.folder / "scenarios.py").write_text(SCENARIOS.read_text(encoding="utf-8"), encoding="utf-8")
    assert "done" in project.python(f"import scenarios\nscenarios.{name}()\nprint('done')")
