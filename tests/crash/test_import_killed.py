"""An import whose workers are killed: the table and the report are those of an undisturbed one (R19)."""

import csv
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.storage.database import Database
from tasks.files import file_digest
from tasks.imports import ImportContacts
from tasks.settings import TaskSettings
from tasks.tables import Contact
from tests.crash.server import Server
from tests.crash.tempo import QUICK
from tests.demo_settings import settings_of
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

TWICE, BAD, ODD = 500, 200, 50  # rows: with the address of one far above, with a fault, with a value of two lines
FAR = 10 * ImportContacts.chunk_size  # rows: never in one chunk
KILLED_AT = (0, 1 / 3, 2 / 3)  # of the rows are done; at 0 it is still cut
LONG = ("-Q", "long", "-c", "2")
COLUMNS = ("email", "name", "company", "city", "country", "phone")
FAMILIES, GIVEN = ("佐藤", "鈴木", "髙橋", "渡邊", "山﨑", "齋藤"), ("陽菜", "蓮", "結衣", "大翔", "さくら", "ソウタ")
COMPANIES, CITIES = ("㈱能登表具", "東京ソフトウェア", "十勝乳業", ""), ("札幌", "横浜", "那覇", "")

# What a row is made into, and the fault that must be told of it.
FAULTS: dict[str, Callable[[list[str]], list[str]]] = {
    "not an e-mail address": lambda row: [row[0].replace("@", "\uff20"), *row[1:]],
    "email is empty": lambda row: ["", *row[1:]],
    "name is empty": lambda row: [row[0], "\u3000", *row[2:]],
    "name has more than 200 characters": lambda row: [row[0], row[1] * 101, *row[2:]],
    "name has a null character": lambda row: [row[0], f"{row[1]}\0", *row[2:]],
    "country is not a code of two capital letters": lambda row: [*row[:4], "jp", row[5]],
    "1 more values than columns": lambda row: [*row, "?"],
    "3 fewer values than columns": lambda row: row[:3],
}


@dataclass(frozen=True)
class Expected:
    """What reading the file line by line gives: contacts with the line of the row that counts, and faults by line."""

    contacts: list[tuple[Any, ...]]
    good: int
    faults: dict[int, str]

    @classmethod
    def of(cls, path: Path) -> "Expected":
        """Read a file of `make`: its rows end with CR LF, and a line feed alone is within a value."""
        contacts: dict[str, tuple[Any, ...]] = {}
        faults: dict[int, str] = {}
        line, good, source = 1, 0, file_digest(path)
        for record in path.read_bytes().decode("cp932").split("\r\n"):
            row = next(csv.reader([record])) if line > 1 and record else []
            if row and (fault := cls.fault(row)):
                faults[line] = fault
            elif row:
                good += 1
                contacts[row[0].lower()] = (row[0].lower(), *row[1:], source, line)
            line += 1 + record.count("\n")
        return cls(sorted(contacts.values()), good, faults)

    @staticmethod
    def fault(row: list[str]) -> str | None:
        """Which one `make` has put into a row."""
        if len(row) != len(COLUMNS):
            more = len(row) > len(COLUMNS)
            return "1 more values than columns" if more else f"{len(COLUMNS) - len(row)} fewer values than columns"
        email, name, country = row[0], row[1].strip(), row[4]
        signs = {
            "email is empty": not email,
            "name is empty": not name,
            "name has more than 200 characters": len(name) > 200,
            "name has a null character": "\0" in name,
            "not an e-mail address": "@" not in email,
            "country is not a code of two capital letters": country == "jp",
        }
        return next((fault for fault, found in signs.items() if found), None)


def make(path: Path, rows: int) -> None:
    """Write a list of so many rows as Excel in Japan does, with faults, rows of one address, values of two lines, and empty lines."""
    some = random.Random(19)
    special = some.sample(range(FAR, rows), TWICE + BAD + ODD)
    twice, bad, odd = set(special[:TWICE]), special[TWICE : TWICE + BAD], set(special[TWICE + BAD :])
    fault_at = {index: list(FAULTS.values())[number % len(FAULTS)] for number, index in enumerate(bad)}
    with path.open("w", encoding="cp932", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index in range(rows):
            name = f"{some.choice(FAMILIES)} {some.choice(GIVEN)}"
            address = f"U{some.randrange(index - FAR)}" if index in twice else f"u{index}"
            row = [
                f"{address}@example.com",
                name,
                some.choice(COMPANIES),
                some.choice(CITIES),
                "JP",
                f"+81 3 {index:08}",
            ]
            if index in odd:
                row[2] = "第一営業部\n第二課"
            writer.writerow(fault_at[index](row) if index in fault_at else row)
            if index % 10_000 == 0:
                file.write("\r\n")


@pytest.fixture(scope="module", params=[20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def rows(request: pytest.FixtureRequest) -> int:
    """How many rows the file has."""
    return int(request.param)


@pytest.fixture(scope="module")
def contact_list(tmp_path_factory: pytest.TempPathFactory, rows: int) -> Path:
    """The file, which is the same for both databases."""
    path = tmp_path_factory.mktemp("list") / "contacts.csv"
    make(path, rows)
    return path


@pytest.fixture(scope="module")
def expected(contact_list: Path, rows: int) -> Expected:
    """What must come of it."""
    found = Expected.of(contact_list)
    kinds = Counter(found.faults.values())
    assert (found.good, kinds.total(), set(kinds)) == (rows - BAD, BAD, set(FAULTS))
    assert (
        rows - BAD - TWICE <= len(found.contacts) < rows - BAD - TWICE + 20
    )  # some are of an address that is bad above
    return found


@dataclass(frozen=True)
class Place:
    """An installation with a database of its own, and its application in this process."""

    installation: Installation
    app: ConventionsApp
    rows: int

    def send(self, path: Path, **options: Any) -> str:
        """Send the import; returns the id of the message."""
        kwargs = {"path": str(path), "sha256": file_digest(path)}
        return str(ImportContacts.apply_async(kwargs=kwargs, **options).id)

    def summary(self, batch_id: str) -> BatchSummary | None:
        """How far it is."""
        return self.app.batches.summary(batch_id, returns=False)

    def wait_until_done(self, batch_id: str) -> None:
        """Wait until `finish` has run and all is acknowledged; nothing has failed."""
        wait_until(lambda: self.app.batches.state(batch_id) in ("done", "dead"), 120, "the import ends")
        wait_until_empty(self.app, 60)
        summary = self.summary(batch_id)
        assert summary is not None
        assert (summary.state, summary.done, summary.failed) == ("done", self.rows, 0)
        assert summary.chunks == self.rows // ImportContacts.chunk_size
        assert letters(self.app, state=None) == []

    def contacts(self) -> list[tuple[Any, ...]]:
        """The table, without the columns that are of the moment."""
        names = (*COLUMNS, "source", "source_line")
        with self.app.database.session(read_only=True) as session:
            return sorted(tuple(row) for row in session.execute(select(*(getattr(Contact, name) for name in names))))

    def moments(self) -> dict[int, Any]:
        """When each contact was changed last."""
        with self.app.database.session(read_only=True) as session:
            return {row.id: row.updated_at for row in session.execute(select(Contact.id, Contact.updated_at))}

    def check(self, batch_id: str, path: Path, expected: Expected) -> None:
        """The table and the report are as they must be."""
        assert self.contacts() == expected.contacts
        digest = file_digest(path)
        folder = Path(settings_of(self.app).output_dir, "imports")
        report, faults = folder / f"contacts-{digest[:12]}.json", folder / f"contacts-{digest[:12]}-faults.csv"
        assert json.loads(report.read_text()) == {
            "path": str(path),
            "sha256": digest,
            "batch": batch_id,
            "rows": self.rows,
            "saved": expected.good,
            "faults": len(expected.faults),
            "rows_of_dead_chunks": 0,
        }
        with faults.open(encoding="utf-8", newline="") as file:
            assert [(int(row["line"]), row["fault"]) for row in csv.DictReader(file)] == [*expected.faults.items()]
        assert {one for one in folder.iterdir() if not one.name.startswith(".")} == {report, faults}


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.soak), "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Make the address of a new, empty database, of each kind in turn."""
    if request.param == "sqlite":
        return lambda folder: f"sqlite:///{folder / 'business.sqlite3'}"
    url = make_url(request.getfixturevalue("postgres_url"))

    def create(folder: Path) -> str:
        name, server = f"d{uuid4().hex[:12]}", Database(url.render_as_string(hide_password=False))
        with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        server.dispose()
        return url.set(database=name).render_as_string(hide_password=False)

    return create


@pytest.fixture
def place(tmp_path: Path, server: Server, new_url: Callable[[Path], str], rows: int) -> Callable[[str], Any]:
    """Make an installation of these tasks, with short intervals, on the test's Valkey."""

    @contextmanager
    def made(name: str) -> Iterator[Place]:
        folder = tmp_path / name
        folder.mkdir()
        settings: dict[str, Any] = {
            "start_limit": len(KILLED_AT) + 1,  # on a slow machine each kill may meet the splitter, or the same chunk
            "database_url": new_url(folder),
            "output_dir": str(folder / "output"),
            "input_dir": "/",
        }
        installation = Installation(folder, ["tasks"], settings_class=TaskSettings, broker_url=server.url, **settings)
        QUICK.install(installation)
        with installation.application() as app:
            app.load_tasks()
            app.database.upgrade()
            yield Place(installation, app, rows)

    return made


def import_killed(place: Place, path: Path) -> str:
    """Send it, and kill its worker while it is cut, after a third of the chunks, and after two thirds."""
    batch_id = place.send(path)

    def has_come(part: float) -> bool:
        cursor, summary = place.app.batches.cursor(batch_id), place.summary(batch_id)
        if summary is None:
            return False
        if part:
            return summary.done >= place.rows * part
        return cursor is not None and cursor.sent.chunks > 0 and summary.done > 0 and summary.state == "splitting"

    for part in KILLED_AT:
        with place.installation.worker(*LONG) as worker:
            wait_until(partial(has_come, part), 120, f"{part:.0%} of the rows are done")
            os.killpg(worker.process.pid, signal.SIGKILL)
        summary = place.summary(batch_id)
        assert summary is not None
        assert summary.done < place.rows, "there was something left to do"
    with place.installation.worker(*LONG):
        place.wait_until_done(batch_id)
    return batch_id


def test_an_import_survives_its_workers(
    place: Callable[[str], Any], contact_list: Path, expected: Expected, show: Callable[[str], None]
) -> None:
    """The table is that of an undisturbed import; sent again it does nothing, asked for again it changes nothing."""
    with place("undisturbed") as undisturbed, undisturbed.installation.worker(*LONG):
        start = time.monotonic()
        batch_id = undisturbed.send(contact_list)
        undisturbed.wait_until_done(batch_id)
        seconds = time.monotonic() - start
        undisturbed.check(batch_id, contact_list, expected)

    with place("killed") as killed:
        start = time.monotonic()
        batch_id = import_killed(killed, contact_list)
        show(
            f"{killed.rows:,} rows: {killed.rows / seconds:,.0f} a second; killed three times {time.monotonic() - start:.0f} s"
        )
        killed.check(batch_id, contact_list, expected)
        moments = killed.moments()
        with killed.installation.worker(*LONG) as worker:
            duplicate = killed.send(contact_list)
            worker.wait_for(f"duplicate: id={duplicate}")
            wait_until_empty(killed.app)
            assert [one.id for one in killed.app.batches.listing(10)] == [batch_id]
            killed.check(batch_id, contact_list, expected)
            again = killed.send(contact_list, idempotency_key="again")
            killed.wait_until_done(again)
        killed.check(again, contact_list, expected)
        assert killed.moments() == moments
