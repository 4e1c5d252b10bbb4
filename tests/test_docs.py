"""The documents say what is there: settings, rules, tests, commands."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
from celery.bin.celery import celery

import conventions
from conventions.core import secret_files
from conventions.core.errors import ConventionError
from conventions.core.settings import ENV_PREFIX, Settings
from tasks.settings import TaskSettings
from tests import files_page
from tests.support import patient

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CELERY = re.compile(r"celery -A [\w.…]+ ([^`\n|)]+)")
OWN = (
    "up",
    "demo",
    "db",
    "dead-letters",
    "batch",
    "schedule",
    "explain",
    "cancel",
    "keys",
    "check",
    "job",
    "audit",
    "lost",
    "metrics",
    "now",
    "jobs",
    "messages",
    "permissions",
    "pause",
    "resume",
    "alerts",
    "drain",
    "leave",
)


def table(path: Path, first_column: str) -> list[list[str]]:
    """The rows of the Markdown table whose first column has this head."""
    rows: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if line.startswith(f"| {first_column} |"):
            rows = [cells]
        elif rows and line.startswith("|"):
            rows.append(cells)
        elif rows:
            break
    assert rows, f"{path.name} has no table that begins with {first_column!r}"
    return rows[2:]


def written(default: Any) -> str:
    """A default as the table of settings writes it."""
    if default is None or default == ():
        return "none"
    return f"`{round(default.total_seconds()) if isinstance(default, timedelta) else default}`"


def test_the_table_of_settings_is_the_class() -> None:
    """Each field with its variable, default and description, in the class's order, and nothing else."""
    expected = [
        [f"`{ENV_PREFIX}{name.upper()}`", written(field.default), field.description]
        for name, field in TaskSettings.model_fields.items()
    ]
    ours = len(Settings.model_fields)
    assert table(ROOT / "docs" / "operations.md", "variable") == expected[:ours]
    assert table(ROOT / "docs" / "operations.md", "variable of these tasks") == expected[ours:]


def rules() -> list[list[str]]:
    """The rows of docs/conventions.md."""
    return table(ROOT / "docs" / "conventions.md", "rule")


def test_each_rule_has_one_row() -> None:
    """R1 to R23, in order."""
    assert [row[0] for row in rules()] == [f"R{number}" for number in range(1, 24)]


def test_each_rule_says_whether_it_is_enforced() -> None:
    """Enforced, partly, or not yet; what is enforced names code and proof, what is partly there says what is missing."""
    for rule, _, state, where, _, _, proof in rules():
        word, _, rest = state.partition(":")
        assert word in ("enforced", "partly", "not yet"), f"{rule}: {state}"
        assert word == "not yet" or (where and proof), f"{rule} is {word} and names no code or no proof"
        assert word != "partly" or rest, f"{rule} is partly enforced and does not say what is missing"


def test_what_the_rules_name_exists() -> None:
    """Every test path, and every file of the package."""
    for rule, _, _, where, _, _, proof in rules():
        for path in re.findall(r"`(tests/[^`]*)`", proof):
            assert (ROOT / path).exists(), f"{rule} is proven by {path}, which does not exist"
            assert [*_tests(ROOT / path)], f"{rule} is proven by {path}, which has no test"
        for path in re.findall(r"`([^`]+\.py)`", where):
            assert (ROOT / "conventions" / path).exists(), f"{rule} is enforced in {path}, which does not exist"


def test_each_rule_has_a_worker_in_the_default_run() -> None:
    """`docs/tests.md` names a test for whatever is there of a rule, and those files exist."""
    rows = table(ROOT / "docs" / "tests.md", "rule")
    proven = {rule for named, _ in rows for rule in re.findall(r"R\d+", named)}
    assert proven == {row[0] for row in rules() if not row[2].startswith("not yet")}
    for _, proof in rows:
        for path in re.findall(r"`(tests/[^`]*)`", proof):
            assert (ROOT / path).exists(), f"docs/tests.md names {path}, which does not exist"


def _tests(path: Path) -> list[str]:
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in files)
    return [
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def commands() -> list[tuple[str, str]]:
    """Every `celery -A app …` that a document names, with the document's name."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        found += [(document.name, match[1].strip()) for match in CELERY.finditer(text)]
    return found


def test_the_documents_name_commands() -> None:
    """The test below looks at something."""
    assert {name for name, _ in commands()} >= {"README.md", "operations.md"}


@pytest.mark.parametrize(("document", "line"), commands())
def test_every_command_that_a_document_names_exists(document: str, line: str) -> None:
    """The command, each of its sub-commands separated by ` / `, and each option."""
    words = [word.strip("[]") for word in shlex.split(line, comments=True)]
    context = click.Context(celery)
    command: click.Command | None = _own(words[0]) or celery.get_command(context, words[0])
    assert command is not None, f"{document}: there is no command {words[0]}"
    names = [word for word in words[1:] if (word.isalpha() and word.islower()) or "-" in word.strip("-")]
    if isinstance(command, click.Group) and words[0] in OWN:
        # Alone the first one is a sub-command, what follows it is an argument, such as a schedule's name.
        subcommands = [name for name in names if not name.startswith("-")][: None if "/" in words else 1]
        unknown = [name for name in subcommands if name not in command.commands]
        assert not unknown, f"{document}: {words[0]} has no {unknown}"
        command = command.commands[subcommands[0]] if len(subcommands) == 1 else command
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for option in (word for word in words if word.startswith("-")):
        assert words[0] == "flower" or option in known, f"{document}: {line} has no option {option}"


def _own(name: str) -> click.Command | None:
    """The command itself, which its entry point stands for."""
    if name not in OWN:
        return None
    attribute = name.replace("-", "_")
    command: click.Command = getattr(importlib.import_module(f"conventions.cli.{attribute}"), attribute)
    return command


@pytest.mark.parametrize("name", OWN)
def test_every_command_of_ours_is_installed_and_documented(name: str) -> None:
    """As an entry point that lists what the command is for, and with a line in the operations guide."""
    (entry,) = entry_points(group="celery.commands", name=name)
    command = _own(name)
    assert command is not None
    assert command.help
    assert entry.load().name == command.name == name
    assert entry.load().short_help
    assert f"celery -A tasks {name}" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_file_that_a_document_links_exists() -> None:
    """Links within the repository lead somewhere."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links {target}, which does not exist"


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of this language, with their document."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (document.name, match[1])
        for document in DOCUMENTS
        for match in pattern.finditer(document.read_text(encoding="utf-8"))
    ]


def test_every_file_that_a_guide_names_exists() -> None:
    """As a path in backticks, from the root, `conventions/` or `tests/` on."""
    guides = [
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs" / name for name in ("architecture.md", "tests.md", "conventions.md")),
    ]
    missing = [
        f"{guide.name}: {path}"
        for guide in [*guides, *sorted((ROOT / "docs" / "design").glob("*.md"))]
        for path in re.findall(
            r"`([\w./-]+/[\w.-]+\.(?:py|lua|sql|acl|html|toml|sh|yml))(?:::\w+)?`", guide.read_text(encoding="utf-8")
        )
        if not any((place / path).exists() for place in (ROOT, ROOT / "conventions", ROOT / "tests"))
    ]
    assert missing == []


@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_the_code_in_the_documents_is_python_and_imports_what_exists(document: str, code: str) -> None:
    """It compiles, and every name that it takes from `conventions` is there."""
    tree = ast.parse(code, document)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "conventions":
            missing = [alias.name for alias in node.names if not hasattr(conventions, alias.name)]
            assert not missing, f"{document} imports {missing}"


def test_every_variable_that_a_document_names_exists() -> None:
    """`CONVENTIONS_…` in a text is a setting, or where files of settings are."""
    known = {ENV_PREFIX + name.upper() for name in TaskSettings.model_fields} | {secret_files.VARIABLE}
    for document in DOCUMENTS:
        named = set(re.findall(r"CONVENTIONS_[A-Z_]+[A-Z]", document.read_text(encoding="utf-8")))
        assert named <= known, f"{document.name} names {sorted(named - known)}"


def test_what_is_exported_is_sorted_and_real() -> None:
    """`__all__` is what the package's front door has, in order; errors are those of the tree."""
    names = conventions.__all__
    assert list(names) == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert all(hasattr(conventions, name) for name in names)
    assert ConventionError.__name__ in names


def test_the_python_of_the_page_on_schedules_runs() -> None:
    """All of it, in order, as a `beat_schedule.py` of this repository."""
    text = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*blocks, "print(len(SCHEDULE))"])],
        cwd=ROOT, env=os.environ | {"CONVENTIONS_BROKER_URL": "redis://127.0.0.1:1"},
        capture_output=True, text=True, timeout=patient(60), check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_every_file_is_listed_with_its_purpose() -> None:
    """`docs/design/files.md` is what `tests/files_page.py` writes."""
    assert files_page.PAGE.read_text(encoding="utf-8") == files_page.page(), "uv run python -m tests.files_page"


def test_every_rule_of_the_protocol_that_code_names_exists() -> None:
    """By its number, in `docs/protocol.md`, where the rules stand in order."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    rules = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert rules == [*range(1, len(rules) + 1)]
    named = set()
    for file in [
        *(ROOT / "conventions").rglob("*.py"),
        *(ROOT / "conventions").rglob("*.lua"),
        *(ROOT / "tests").rglob("*.py"),
    ]:
        for numbers in re.findall(r"\(protocol ([\d, ]+)\)", file.read_text(encoding="utf-8")):
            named |= {int(number) for number in numbers.split(",")}
    assert named
    assert named <= set(rules)
