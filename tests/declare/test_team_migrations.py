"""Which folders called `migrations` are ours to run. No file of another's is executed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from conventions.core.errors import TaskModuleError
from conventions.declare.team_migrations import foreign_migrations_of, migrations_of

EXECUTED = "from pathlib import Path\nPath(__file__).with_suffix('.executed').touch()\n"
ALEMBIC = EXECUTED + "revision = 'a1'\ndown_revision = None\n"
ANNOTATED = EXECUTED + "revision: str = 'a1'\n"
DJANGO = (
    EXECUTED + "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n    operations = []\n"
)

Write: TypeAlias = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a package `orders`, with these files below `migrations`; returns that folder."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> Path:
        folder = tmp_path / "orders" / "migrations"
        folder.mkdir(parents=True)
        (tmp_path / "orders" / "__init__.py").write_text(EXECUTED, encoding="utf-8")
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        return folder

    return write


def nothing_executed(folder: Path) -> bool:
    """Whether no file of the package has run."""
    return not list(folder.parent.rglob("*.executed")) and "orders" not in sys.modules


@pytest.mark.parametrize("version", [ALEMBIC, ANNOTATED])
def test_versions_of_alembic_are_ours(write: Write, version: str) -> None:
    """In either spelling of Alembic's templates."""
    folder = write(__init__="", m0001=version)
    assert list(migrations_of("orders")) == [folder]
    assert list(foreign_migrations_of("orders")) == []
    assert nothing_executed(folder)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"__init__": "", "m0001_initial": DJANGO}, "migrations of Django: run `manage.py migrate`"),
        ({"env": EXECUTED, "m0001": ALEMBIC}, "an Alembic environment of its own: run its `alembic upgrade`"),
        ({"env": EXECUTED}, "an Alembic environment of its own: run its `alembic upgrade`"),
        ({"__init__": ""}, "no Alembic version in it"),
    ],
    ids=["django", "environment", "environment without versions", "nothing"],
)
def test_those_of_others_are_left_alone(write: Write, files: dict[str, str], reason: str) -> None:
    """Nothing of them is executed, and the command says why."""
    folder = write(**files)
    assert list(migrations_of("orders")) == []
    assert list(foreign_migrations_of("orders")) == [(folder, reason)]
    assert nothing_executed(folder)


@pytest.mark.parametrize(
    "version",
    [
        "revision, down_revision = 'a1', None\n",
        "if True:\n    revision = 'a1'\n",
        "try:\n    revision = 'a1'\nexcept Exception:\n    pass\n",
        "from base import revision\n",
    ],
)
def test_other_ways_to_write_a_version(write: Write, version: str) -> None:
    """Alembic reads the name, however it comes about."""
    folder = write(m0001=version)
    assert list(migrations_of("orders")) == [folder]


def test_what_is_no_module_says_nothing(write: Write) -> None:
    """What editors and systems leave there: hidden files, a link to nothing, a folder."""
    folder = write(m0001=ALEMBIC)
    (folder / "._m0001.py").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".#m0001.py").symlink_to("ann@host.1234")
    (folder / "m0002.py").symlink_to("nowhere")
    (folder / "m0003.py").mkdir()
    assert list(migrations_of("orders")) == [folder]
    (folder / "m0001.py").write_text("revision = 'of the text below'\n" + DJANGO)
    assert [reason for _, reason in foreign_migrations_of("orders")] == [
        "migrations of Django: run `manage.py migrate`"
    ]


def test_both_in_one_folder_are_refused(write: Write) -> None:
    """Alembic would execute Django's."""
    folder = write(m0001=ALEMBIC, m0002=DJANGO)
    with pytest.raises(TaskModuleError, match="move one of them"):
        list(migrations_of("orders"))
    assert nothing_executed(folder)


def test_a_file_that_is_no_python_is_named(write: Write) -> None:
    """With its line."""
    folder = write(m0001="revision = 'a'\nthis is no Python\n")
    with pytest.raises(TaskModuleError, match=r"m0001\.py, line 2"):
        list(migrations_of("orders"))
    assert nothing_executed(folder)


def test_a_package_that_is_not_there() -> None:
    """Named, with where it was said."""
    with pytest.raises(TaskModuleError, match="nowhere: there is no such module"):
        list(migrations_of("nowhere"))
