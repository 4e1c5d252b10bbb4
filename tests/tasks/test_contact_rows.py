"""Reading, checking and writing the rows of a contact list."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from conventions import BusinessError
from conventions.database import Database
from tasks.contact_rows import count_rows, detect_encoding, fault_of, read_rows, upsert
from tasks.tables import Contact

GOOD = {"line": 2, "email": "a@example.com", "name": "A", "company": "", "city": "", "country": "", "phone": ""}


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
    assert [(row["line"], row["name"]) for row in read_rows(path)] == [(2, "two\nlines"), (4, "B")]
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
    ],
)
def test_the_first_fault_of_a_row_is_said(change: dict[str, Any], fault: str | None) -> None:
    """In words that a person can act on."""
    assert fault_of(GOOD | change) == fault


def test_rows_are_inserted_or_updated(database: Database) -> None:
    """By address, whatever its case; of two rows the later one counts."""
    with database.session() as session:
        assert upsert(session, [GOOD, GOOD | {"email": "b@example.com", "name": "B"}]) == 2
    with database.session() as session:
        assert upsert(session, [GOOD | {"name": "ignored"}, GOOD | {"email": "A@Example.com", "name": "A2"}]) == 1
    with database.session() as session:
        contacts = session.scalars(select(Contact).order_by(Contact.email)).all()
        assert [(contact.email, contact.name) for contact in contacts] == [
            ("a@example.com", "A2"),
            ("b@example.com", "B"),
        ]
        assert contacts[0].updated_at > contacts[0].created_at
        assert contacts[1].updated_at == contacts[1].created_at


def test_the_same_rows_again_change_nothing(database: Database) -> None:
    """A chunk that runs twice does not even look like a change."""
    for _ in range(2):
        with database.session() as session:
            upsert(session, [GOOD])
    with database.session() as session:
        contact = session.scalars(select(Contact)).one()
        assert contact.updated_at == contact.created_at


def test_no_rows_are_no_statement(database: Database) -> None:
    """A chunk may hold nothing but faults."""
    with database.session() as session:
        assert upsert(session, []) == 0
