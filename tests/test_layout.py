"""The ground rules of the code: floors, sizes, public names, comments where they are a must."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import conventions
from tests.workers import ROOT

PACKAGE = ROOT / "conventions"
MOST_LINES_OF_A_FUNCTION = 59
LAST_FLOOR_WITHOUT_CELERY = 2

ROW = re.compile(r"^\| (\d) \| (.+) \|$", re.MULTILINE)
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])


def floors() -> dict[str, tuple[int, int]]:
    """The table of floors in `docs/design.md`: for each name its floor and its place on it."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    return {
        name: (int(floor), place) for floor, cell in rows for place, name in enumerate(re.findall(r"`([^`]+)`", cell))
    }


def unit_of(path: Path) -> str:
    """The name in the table that a file belongs to: a module, or a folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, also within functions, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the full name"
            module = node.module or ""
            if module == "conventions":
                yield from ((f"conventions.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def test_every_module_has_a_floor() -> None:
    """The table names each module or folder once, and nothing that is not there."""
    units = {unit_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    table = floors()
    assert units == set(table)
    assert sorted({floor for floor, _ in table.values()}) == [0, 1, 2, 3, 4]


def test_a_module_imports_from_below() -> None:
    """From a lower floor, or from one that is named before it on its own."""
    table = floors()
    faults = []
    for path in sorted(PACKAGE.rglob("*.py")):
        unit = unit_of(path)
        if unit == "__init__":
            continue
        for name, line in imports(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package != "conventions" or other == unit:
                continue
            if other not in table:
                faults.append(f"{path.relative_to(ROOT)}:{line}: imports {name}, which has no floor")
            elif table[other] > table[unit]:
                faults.append(f"{path.relative_to(ROOT)}:{line}: {unit} {table[unit]} imports {other} {table[other]}")
    assert faults == []


def test_the_lower_floors_know_no_celery() -> None:
    """What a claim or a progress is, does not depend on what carries the messages."""
    table = floors()
    unwanted = ("celery", "kombu", "billiard", "celery_redis_plus", "redbeat", "flower")
    faults = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if unit_of(path) != "__init__" and table[unit_of(path)][0] <= LAST_FLOOR_WITHOUT_CELERY
        for name, line in imports(path)
        if name.partition(".")[0] in unwanted
    ]
    assert faults == []


def test_the_layer_does_not_know_its_tasks() -> None:
    """`conventions/` is all that is in the wheel."""
    faults = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name, line in imports(path)
        if name.partition(".")[0] in ("tasks", "tests", "beat_schedule")
    ]
    assert faults == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    """A reader sees a function as a whole."""
    text = path.read_text(encoding="utf-8")
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


SCRIPTS = sorted(PACKAGE.glob("lua/*"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_takes_and_returns(path: Path) -> None:
    """Its comment names KEYS, ARGV and every answer, so that its caller need not read it."""
    assert path.suffix == ".lua"
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("#!"):
        lines = lines[1:]
    header = "\n".join(line for line in lines[: lines.index(next(one for one in lines if not one.startswith("--")))])
    for word in ("KEYS:", "ARGV:", "Returns"):
        assert word in header, f"{path.name}: the comment at its top does not have {word!r}"


def test_the_public_names() -> None:
    """`__all__` is sorted, is what the package imports for its users, and nothing else is in it."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("conventions.")
        for alias in node.names
    }
    assert set(conventions.__all__) == imported
    assert conventions.__all__ == sorted(conventions.__all__, key=lambda name: (not name.isupper(), name))
    for name in conventions.__all__:
        assert getattr(conventions, name).__doc__ or name.isupper(), f"{name} has no docstring"


def test_what_every_issue_promises_is_there() -> None:
    """The names of issues 1 to 5; teams rely on them."""
    promised = """
        create_app ImmediateTask ScheduledTask LongRunningTask BatchTask ConventionTask RetryPolicy Priority
        EVERY_ARGUMENT BusinessError ConventionError PayloadError CredentialInPayload IdempotencyConflict LeaseLost
        PermissionDenied Progress chunked acting_as Schedule cron every planned_date previous_day week_of
        japanese_business_days Settings
    """
    assert set(promised.split()) <= set(conventions.__all__)
