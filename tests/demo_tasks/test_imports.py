"""`ImportContacts`, step by step; the whole of it runs in the demo."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from conventions import BusinessError
from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.core.chunking import batched
from tasks.files import file_digest
from tasks.imports import ImportContacts
from tasks.tables import Contact
from tests.demo_settings import settings_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "contacts.csv"


def run(path: Path) -> dict[str, Any]:
    """Do what the batch does, in this process."""
    task, summary, arguments = processed(path)
    report: dict[str, Any] = task.finish(summary, **arguments)
    return report


def processed(path: Path) -> tuple[Any, BatchSummary, dict[str, str]]:
    """The task, the summary of its chunks, and its arguments."""
    task = ImportContacts()
    arguments = {"path": str(path), "sha256": file_digest(path)}
    total = task.count(**arguments)
    returns = [task.process(list(chunk), **arguments) for chunk in batched(task.items(**arguments), 100)]
    json.dumps(returns)
    summary = BatchSummary("batch-1", task.name, "running", total, total, 0, len(returns), returns=returns)
    return task, summary, arguments


def written(app: ConventionsApp) -> dict[str, str]:
    """The files of the reports, by name."""
    return {path.name: path.read_text() for path in Path(settings_of(app).output_dir, "imports").iterdir()}


def contacts(app: ConventionsApp) -> int:
    with app.database.session() as session:
        return session.scalar(select(func.count()).select_from(Contact)) or 0


def test_the_example_is_imported_whole(app: ConventionsApp) -> None:
    """Every row of the real list is a contact afterwards."""
    settings_of(app).input_dir = str(EXAMPLE.parent)
    report = run(EXAMPLE)
    assert report["rows"] == report["saved"] == contacts(app) == 7068
    assert report["faults"] == 0
    assert [path.name for path in Path(settings_of(app).output_dir, "imports").iterdir()] == [
        "contacts-88e801a5219f.json"
    ]


def test_bad_rows_are_left_out_and_named(app: ConventionsApp) -> None:
    """One bad row stops no other, and the report says on which line it is."""
    path = Path("my list.csv")
    path.write_text("email,name\na@example.com,A\nnobody,B\nc@example.com,\nd@example.com,D\n", encoding="cp932")
    report = run(path)
    assert (report["rows"], report["saved"], report["faults"]) == (4, 2, 2)
    assert contacts(app) == 2
    (file,) = Path(settings_of(app).output_dir, "imports").glob("my-list-*-faults.csv")
    with file.open(encoding="utf-8", newline="") as rows:
        assert list(csv.DictReader(rows)) == [
            {"line": "3", "fault": "not an e-mail address"},
            {"line": "4", "fault": "name is empty"},
        ]


def test_a_report_that_is_written_twice_is_the_same(app: ConventionsApp) -> None:
    """`finish` may run again after a kill."""
    path = Path("list.csv")
    path.write_text("email,name\na@example.com,A\nnobody,B\n")
    task, summary, arguments = processed(path)
    for _ in range(2):
        assert task.finish(summary, **arguments)["faults"] == 1
        assert [*sorted(written(app))] == [f"list-{arguments['sha256'][:12]}{end}" for end in ("-faults.csv", ".json")]
    task.finish(replace(summary, returns=[{"saved": 2, "faults": []}]), **arguments)
    assert [*written(app)] == [f"list-{arguments['sha256'][:12]}.json"], "no faults of another import are left"


def test_chunks_that_recovered_are_in_the_report(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their faults; of two calls at once, the one that writes last has read last."""
    path = Path("list.csv")
    path.write_text("email,name\na@example.com,A\nnobody,B\n")
    task, whole, arguments = processed(path)
    dead = replace(whole, done=0, failed=2, failed_chunks=[0], returns=[])
    assert task.finish(dead, **arguments)["rows_of_dead_chunks"] == 2
    assert len(written(app)) == 1
    monkeypatch.setattr(app.batches, "summary", lambda _: whole)
    for summary in (whole, dead):  # the second was read before the first call wrote
        report = task.recovered(summary, **arguments)
        assert (report["rows"], report["saved"], report["faults"], report["rows_of_dead_chunks"]) == (2, 1, 1, 0)
        files = written(app)
        assert files[f"list-{arguments['sha256'][:12]}-faults.csv"] == "line,fault\n3,not an e-mail address\n"
        assert json.loads(files[f"list-{arguments['sha256'][:12]}.json"]) == report


def test_a_file_that_changed_is_not_imported_half_and_half(app: ConventionsApp) -> None:
    """The content was part of what was asked for."""
    path = Path("list.csv")
    path.write_text("email,name\na@example.com,A\n")
    digest = file_digest(path)
    path.write_text("email,name\nb@example.com,B\n")
    with pytest.raises(BusinessError, match="has changed since it was sent") as fault:
        ImportContacts().items(path=str(path), sha256=digest)
    assert file_digest(path) not in str(fault.value), "whoever may send could learn it of any file"


def test_a_missing_file_is_a_business_error(app: ConventionsApp) -> None:
    """It is found before anything is cut."""
    with pytest.raises(BusinessError, match=r"no such file: 'none.csv'"):
        ImportContacts().count(path="none.csv", sha256="0" * 64)


@pytest.mark.parametrize("path", ["/etc/passwd", "../list.csv"])
def test_other_folders_are_not_read(app: ConventionsApp, path: str) -> None:
    """A path is an argument, which whoever may send, or edit a dead letter, chooses."""
    with pytest.raises(BusinessError, match="is outside the folder that tasks may read"):
        ImportContacts().count(path=path, sha256="0" * 64)


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
