"""The ground rules of the code: layers, sizes, public names, comments where they are a must."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import conventions
from tests.support import patient
from tests.workers import ROOT

PACKAGE = ROOT / "conventions"
MOST_LINES_OF_A_FUNCTION = 59

SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])


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


def linted(config: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a file of settings."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", str(config)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(120), check=False)


def test_imports_keep_the_contracts() -> None:
    """Folders in layers, no circles, no Celery below: `[tool.importlinter]` of pyproject.toml."""
    found = linted(ROOT / "pyproject.toml")
    assert found.returncode == 0, found.stdout
    assert "0 broken" in found.stdout


def test_a_broken_contract_is_found(tmp_path: Path) -> None:
    """With two folders in the wrong order, the import is named."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert text.count('"attempt_log",\n  "storage",') == 1
    config = tmp_path / "pyproject.toml"
    config.write_text(text.replace('"attempt_log",\n  "storage",', '"storage",\n  "attempt_log",'), encoding="utf-8")
    found = linted(config)
    assert found.returncode == 1
    assert "conventions.attempt_log is not allowed to import conventions.storage" in found.stdout


def test_each_exception_is_needed(tmp_path: Path) -> None:
    """Without the list of exceptions, the first import of each kind is named: of a broker, of a library, of a server."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    config = tmp_path / "pyproject.toml"
    config.write_text(re.sub(r"^ignore_imports = \[.*?\]$", "", text, flags=re.MULTILINE | re.DOTALL), encoding="utf-8")
    found = linted(config).stdout
    for fault in (
        "conventions.broker.codec -> kombu",
        "conventions.permission.decisions -> conventions.library_internals.billiard",
        "conventions.core.outage -> redis",
        "conventions.django.",
        "conventions.tracing.opentelemetry_spans -> opentelemetry",
    ):
        assert fault in found


def test_every_folder_is_on_the_map() -> None:
    """`docs/architecture.md` has one line for each, in the order of the contract, with the rules that name a file of it."""
    architecture, conventions = ((ROOT / "docs" / name).read_text() for name in ("architecture.md", "conventions.md"))
    layers = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert layers is not None
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|[^|]*\|([^|]*)\|$", architecture, re.MULTILINE)
    assert [name for name, _ in rows] == re.findall(r"\w+", layers.group(1))
    picture = re.search(r"^```\n( what people touch .*?)^```", architecture, re.MULTILINE | re.DOTALL)
    assert picture is not None
    assert {name for name, _ in rows} <= set(re.findall(r"\w+", picture.group(1)))
    places: dict[str, set[str]] = {}
    for rule, files in re.findall(r"^\| (R\d+) \|[^|]*\|[^|]*\|([^|]*)\|", conventions, re.MULTILINE):
        for path in re.findall(r"`([^`]+\.py)`", files):
            places.setdefault(path.partition("/")[0].removesuffix(".py"), set()).add(rule)
    assert {name: set(re.findall(r"R\d+", rules)) for name, rules in rows if rules.strip()} == places


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


SCRIPTS = sorted(PACKAGE.glob("storage/lua/*"))


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


@pytest.mark.parametrize("ending", ["py", "html", "js", "css", "lua"])
def test_no_file_has_two_versions(ending: str) -> None:
    """A merge that was left half done: a page shows both, with the marks between them."""
    files = sorted(PACKAGE.rglob(f"*.{ending}"))
    assert files
    assert [
        one.name for one in files if re.search(r"^(<<<<<<<|>>>>>>>) ", one.read_text(encoding="utf-8"), re.MULTILINE)
    ] == []
