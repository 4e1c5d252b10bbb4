"""`ImportContacts`, step by step; the whole of it runs in the demo."""

import csv
import json
from collections.abc import Callable
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from conventions import BusinessError
from conventions.app import ConventionsApp
from conventions.batches import BatchSummary
from tasks.files import file_digest
from tasks.imports import ImportContacts
from tasks.tables import Contact

EXAMPLE = Path(__file__).parents[2] / "examples" / "contacts.csv"


def run(path: Path) -> dict[str, Any]:
    """Do what the batch does, in this process."""
    task = ImportContacts()
    arguments = {"path": str(path), "sha256": file_digest(path)}
    total = task.count(**arguments)
    returns = [task.process(list(chunk), **arguments) for chunk in batched(task.items(**arguments), 100, strict=False)]
    json.dumps(returns)
    summary = BatchSummary("batch-1", task.name, "running", total, total, 0, len(returns), returns=returns)
    report: dict[str, Any] = task.finish(summary, **arguments)
    return report


def contacts(app: ConventionsApp) -> int:
    with app.database.session() as session:
        return session.scalar(select(func.count()).select_from(Contact)) or 0


def test_the_example_is_imported_whole(app: ConventionsApp) -> None:
    """Every row of the real list is a contact afterwards."""
    report = run(EXAMPLE)
    assert report["rows"] == report["saved"] == contacts(app) == 7068
    assert report["faults"] == 0
    assert [path.name for path in Path(app.settings.output_dir, "imports").iterdir()] == ["contacts-88e801a5219f.json"]


def test_bad_rows_are_left_out_and_named(app: ConventionsApp) -> None:
    """One bad row stops no other, and the report says on which line it is."""
    path = Path("my list.csv")
    path.write_text("email,name\na@example.com,A\nnobody,B\nc@example.com,\nd@example.com,D\n", encoding="cp932")
    report = run(path)
    assert (report["rows"], report["saved"], report["faults"]) == (4, 2, 2)
    assert contacts(app) == 2
    (file,) = Path(app.settings.output_dir, "imports").glob("my-list-*-faults.csv")
    with file.open(encoding="utf-8", newline="") as rows:
        assert list(csv.DictReader(rows)) == [
            {"line": "3", "fault": "not an e-mail address"},
            {"line": "4", "fault": "name is empty"},
        ]


def test_a_file_that_changed_is_not_imported_half_and_half(app: ConventionsApp) -> None:
    """The content was part of what was asked for."""
    path = Path("list.csv")
    path.write_text("email,name\na@example.com,A\n")
    digest = file_digest(path)
    path.write_text("email,name\nb@example.com,B\n")
    with pytest.raises(BusinessError, match="has changed since it was sent"):
        ImportContacts().items(path=str(path), sha256=digest)


def test_a_missing_file_is_a_business_error(app: ConventionsApp) -> None:
    """It is found before anything is cut."""
    with pytest.raises(BusinessError, match=r"no such file: 'none.csv'"):
        ImportContacts().count(path="none.csv", sha256="0" * 64)


def test_each_database_takes_a_chunk(make_app: Callable[..., ConventionsApp], database_url: str) -> None:
    """SQLite and PostgreSQL have an upsert each."""
    app = make_app(database_url=database_url)
    rows = [
        {
            "line": n,
            "email": f"u{n}@example.com",
            "name": f"U{n}",
            "company": "",
            "city": "",
            "country": "",
            "phone": "",
        }
        for n in range(2, 102)
    ]
    for _ in range(2):
        assert ImportContacts().process(rows, path="x", sha256="y") == {"saved": 100, "faults": []}
    assert contacts(app) == 100
