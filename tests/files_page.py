"""Writes `docs/design/files.md`: each file of the package with the first line of its docstring.

`uv run python -m tests.files_page`; `tests/test_docs.py` fails where the page is not what this writes.
"""

import ast
from itertools import groupby

from tests.workers import ROOT

PAGE = ROOT / "docs" / "design" / "files.md"
HEAD = """\
# Files

What each file is for, in its own words. Which folder imports from which, and why: [architecture.md](../architecture.md). `uv run python -m tests.files_page` writes
this page.
"""


def page() -> str:
    """The page."""
    files = sorted((ROOT / "conventions").rglob("*.py"), key=lambda path: (path.parent, path.name))
    text = HEAD
    for folder, paths in groupby(files, lambda path: path.parent):
        rows = [
            f"| `{path.name}` | {purpose} |"
            for path in paths
            if (purpose := _purpose(path.read_text(encoding="utf-8")))
        ]
        if "migrations" not in folder.parts and rows:
            text += "\n".join([f"\n## `{folder.relative_to(ROOT)}/`\n", "| file | purpose |", "|---|---|", *rows, ""])
    return text


def _purpose(source: str) -> str:
    lines = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    return lines[0].replace("|", "\\|") if lines else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
