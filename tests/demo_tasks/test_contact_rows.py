"""Reading, checking and writing the rows of a contact list."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text, update

from conventions import BusinessError
from conventions.core.chunking import batched
from conventions.storage.database import Database
from conventions.storage.migrations import run as conventions_run
from tasks.contact_rows import count_rows, detect_encoding, fault_of, read_rows, upsert
from tasks.tables import Contact

MIGRATIONS = Path(__file__).parents[2] / "tasks" / "migrations"
GOOD: dict[str, Any] = {
    "line": 2,
    "email": "a@example.com",
    "name": "A",
    "company": "",
    "city": "",
    "country": "",
    "phone": "",
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: str | bytes, encoding: str = "utf-8") -> Path:
        path = tmp_path / "contacts.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_japanese_files_are_read_in_the_encodings_that_are_in_use(write: Any, encoding: str) -> None:
    """Excel in Japan writes cp932, or UTF-8 with a byte order mark."""
    path = write("email,name,company\nhnd@example.com,窓口①,東京国際空港\n", encoding)
    (row,) = read_rows(path)
    assert (row["email"], row["name"], row["company"]) == ("hnd@example.com", "窓口①", "東京国際空港")


def test_a_character_on_the_border_of_two_blocks_is_no_fault(write: Any) -> None:
    """A file is read in blocks of a mebibyte."""
    path = write("あ" * 400_000)
    assert detect_encoding(path) == "utf-8-sig"


def test_another_encoding_is_a_business_error(write: Any) -> None:
    """Guessing on would make wrong names."""
    with pytest.raises(BusinessError, match="neither UTF-8 nor Shift_JIS"):
        list(read_rows(write(b"email,name,city\na@example.com,Caf\xe9,Paris\n")))


def test_line_numbers_are_those_of_the_file(write: Any) -> None:
    """Also after a value of several lines and an empty line."""
    path = write('Email , NAME\n"a@example.com","two\nlines"\n\nb@example.com,B\n')
    assert [(row["line"], row["name"]) for row in read_rows(path)] == [(2, "two\nlines"), (5, "B")]
    assert count_rows(path) == 2


def test_a_missing_column_is_named(write: Any) -> None:
    """Before a single row is read."""
    with pytest.raises(BusinessError, match="no column email and no column name"):
        next(read_rows(write("address,phone\n1,2\n")))
    with pytest.raises(BusinessError, match="no column email"):
        next(read_rows(write("")))


def test_broken_quotes_name_the_line(write: Any) -> None:
    """The rest of the file cannot be understood."""
    with pytest.raises(BusinessError, match=r"contacts.csv, line 3: not CSV"):
        list(read_rows(write('email,name\na@example.com,A\nb@example.com,"B" x\n')))


def test_a_row_with_too_many_values_is_a_fault_of_that_row(write: Any) -> None:
    """A comma was not quoted."""
    (row,) = read_rows(write("email,name\na@example.com,A,B,C\n"))
    assert fault_of(row) == "2 more values than columns"


def test_a_row_with_too_few_values_is_a_fault_of_that_row(write: Any) -> None:
    """It was cut off, and a half of it must not be saved."""
    first, last = read_rows(write("email,name,company,city\na@example.com,A,,\nb@example.com,B"))
    assert fault_of(first) is None
    assert fault_of(last) == "2 fewer values than columns"


def test_a_file_that_ends_within_quotes_is_refused(write: Any) -> None:
    """It was cut off, too."""
    with pytest.raises(BusinessError, match=r"contacts.csv, line 3: not CSV"):
        list(read_rows(write('email,name\na@example.com,A\nb@example.com,"B')))


def test_a_huge_value_does_not_make_a_huge_chunk(write: Any) -> None:
    """A chunk is a message, which has a limit; the row is a fault all the same."""
    (row,) = read_rows(write(f"email,name\na@example.com,{'あ' * 100_000}\n"))
    assert len(row["name"]) == 201
    assert fault_of(row) == "name has more than 200 characters"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"country": "JP", "phone": "+81 3 0000 0000"}, None),
        ({"email": ""}, "email is empty"),
        ({"name": ""}, "name is empty"),
        ({"email": "example.com"}, "not an e-mail address"),
        ({"email": "a@example"}, "not an e-mail address"),
        ({"email": "a@example.com\nBcc: b@example.com"}, "not an e-mail address"),
        ({"email": "あ@example.com"}, "not an e-mail address"),
        ({"country": "Japan"}, "country has more than 2 characters"),
        ({"country": "jp"}, "country is not a code of two capital letters"),
        ({"name": "A" * 201}, "name has more than 200 characters"),
        ({"name": "A\0"}, "name has a null character"),
    ],
)
def test_the_first_fault_of_a_row_is_said(change: dict[str, Any], fault: str | None) -> None:
    """In words that a person can act on."""
    assert fault_of(GOOD | change) == fault


def test_rows_are_inserted_or_updated(database: Database) -> None:
    """By address, whatever its case; of two rows the one further down counts."""
    with database.session() as session:
        assert upsert(session, [GOOD, GOOD | {"email": "b@example.com", "name": "B"}], "file 1") == 2
    further = [GOOD | {"line": 7, "email": "A@Example.com", "name": "A7"}, GOOD | {"name": "ignored"}]
    with database.session() as session:
        assert upsert(session, further, "file 2") == 1
    with database.session() as session:
        contacts = session.scalars(select(Contact).order_by(Contact.email)).all()
        assert [(contact.email, contact.name) for contact in contacts] == [
            ("a@example.com", "A7"),
            ("b@example.com", "B"),
        ]
        assert contacts[0].updated_at > contacts[0].created_at
        assert contacts[1].updated_at == contacts[1].created_at


def test_the_same_rows_again_change_nothing(database: Database) -> None:
    """A chunk that runs twice does not even look like a change, nor does another file with the same in it."""
    for source in ("file 1", "file 1", "file 2"):
        with database.session() as session:
            upsert(session, [GOOD], source)
    with database.session() as session:
        contact = session.scalars(select(Contact)).one()
        assert contact.updated_at == contact.created_at


def test_no_rows_are_no_statement(database: Database) -> None:
    """A chunk may hold nothing but faults."""
    with database.session() as session:
        assert upsert(session, [], "file 1") == 0


def test_a_contact_that_was_edited_is_as_in_the_file_again(database: Database, add_contact: Callable[..., int]) -> None:
    """The import was asked for again, and says what is right; it is the same for a contact of no file."""
    add_contact(database, "b@example.com", name="of no file")
    rows = [GOOD, GOOD | {"line": 3, "email": "b@example.com", "name": "B"}]
    for _ in range(2):
        with database.session() as session:
            upsert(session, rows, "file 1")
        with database.session() as session:
            assert session.scalars(select(Contact.name).order_by(Contact.email)).all() == ["A", "B"]
            session.execute(update(Contact).values(name="edited"))


@dataclass(frozen=True)
class Run:
    """Chunks of one file, in the order in which they run, on top of what another file has left."""

    before: dict[str, str]
    rows: list[tuple[str, str]]
    size: int
    order: list[int]

    @property
    def chunks(self) -> list[list[dict[str, Any]]]:
        """The rows by chunks, with their lines."""
        rows = (GOOD | {"line": n, "email": email, "name": name} for n, (email, name) in enumerate(self.rows, 2))
        return [list(chunk) for chunk in batched(rows, self.size)]

    @property
    def table(self) -> dict[str, tuple[str, str, int]]:
        """What must be there in the end."""
        others = {email: (name, "other", 9) for email, name in self.before.items()}
        return others | {email: (name, "file", n) for n, (email, name) in enumerate(self.rows, 2)}


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Few addresses and few names, so that rows meet; every chunk at least once."""
    emails, names = st.sampled_from([f"{one}@example.com" for one in "abcd"]), st.sampled_from("XYZ")
    rows = draw(st.lists(st.tuples(emails, names), min_size=1, max_size=12))
    size = draw(st.integers(1, 4))
    count = math.ceil(len(rows) / size)
    again = draw(st.lists(st.integers(0, count - 1), max_size=6))
    order = draw(st.permutations([*range(count), *again]))
    return Run(draw(st.dictionaries(emails, names)), rows, size, order)


def check(database: Database, run: Run) -> None:
    """Let the chunks run as they come, and compare; then run all again, and see that nothing is touched."""
    with database.session() as session:
        session.execute(delete(Contact))
        upsert(
            session, [GOOD | {"line": 9, "email": email, "name": name} for email, name in run.before.items()], "other"
        )
    columns = (Contact.email, Contact.name, Contact.source, Contact.source_line, Contact.updated_at)
    found = []
    for order in (run.order, range(len(run.chunks))):
        for index in order:
            with database.session() as session:
                upsert(session, run.chunks[index], "file")
        with database.session() as session:
            found.append({row[0]: row[1:] for row in session.execute(select(*columns))})
    assert {email: row[:3] for email, row in found[0].items()} == run.table
    assert found[1] == found[0]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A migrated database for many examples."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('contacts') / 'business.sqlite3'}", [MIGRATIONS])
    database.upgrade()
    yield database
    database.dispose()


@settings(max_examples=150, deadline=None)
@given(run=runs())
def test_chunks_in_any_order_and_again_leave_what_one_reading_would(sqlite: Database, run: Run) -> None:
    """An import whose workers are killed gives the same table."""
    check(sqlite, run)


A, B = "a@example.com", "b@example.com"


@pytest.mark.parametrize(
    "run",
    [
        Run({}, [(A, "X"), (B, "Y"), (A, "Z")], 1, [2, 0, 1, 0]),
        Run({A: "Y"}, [(A, "X"), (A, "Y")], 1, [1, 0]),  # the row that counts is as it was before
        Run({A: "X"}, [(A, "X"), (A, "Y"), (A, "X"), (B, "X")], 2, [1, 0, 0, 1]),
    ],
)
def test_the_same_on_each_database(database: Database, run: Run) -> None:
    """Cases of which each goes wrong without one of the conditions."""
    check(database, run)


def test_contacts_of_the_version_before_are_kept(database_url: str) -> None:
    """They are of no file; the way back forgets of which file the others are, and nothing else."""
    database = Database(database_url, [MIGRATIONS])
    migrate(database, command.upgrade, "tasks_0001")
    with database.session() as session:
        values = "1, 'a@example.com', 'old', '', '', '', '', '2026-01-05 12:00:00', '2026-01-05 12:00:00'"
        session.execute(text(f"INSERT INTO contacts VALUES ({values})"))
    database.upgrade()
    with database.session() as session:
        contact = session.scalars(select(Contact)).one()
        assert (contact.name, contact.source, contact.source_line) == ("old", None, None)
        upsert(session, [GOOD], "file 1")
    migrate(database, command.downgrade, "tasks_0001")
    with database.session() as session:
        assert session.execute(text("SELECT * FROM contacts")).one()[1:7] == ("a@example.com", "A", "", "", "", "")
    database.dispose()


def migrate(database: Database, move: Callable[[Config, str], None], revision: str) -> None:
    """Move the tables of these tasks to a revision."""
    config = Config()
    config.set_main_option("script_location", str(Path(conventions_run.__file__).parent))
    config.set_main_option("path_separator", "newline")
    folders = [Path(conventions_run.__file__).parent / "versions", MIGRATIONS]
    config.set_main_option("version_locations", "\n".join(map(str, folders)))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
        connection.commit()
