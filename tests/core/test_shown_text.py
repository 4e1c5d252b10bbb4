"""What people are shown: nothing that a terminal obeys, no secrets that errors repeat."""

import logging
import stat
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from conventions.cli.base import json_of
from conventions.core.error_text import describe
from conventions.core.printable_text import printable
from conventions.core.secrets_in_text import without_secrets
from conventions.execution.log_redaction import SafeRecord
from conventions.execution.success_log import as_our_line
from conventions.storage.database import Database
from tests.databases import database  # noqa: F401  # a fixture
from tests.support import at_most


@pytest.mark.parametrize(
    ("given", "line", "lines"),
    [
        ("お客様 ä 7\t1", "お客様 ä 7\t1", None),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07", None),
        ("one\ntwo\r", "one\\ntwo\\r", "one\ntwo\\r"),
        ("\x9b31m \x7f \u202eabc\u2066 \u2028 \ud800", "\\x9b31m \\x7f \\u202eabc\\u2066 \\u2028 \\ud800", None),
    ],
)
def test_a_terminal_obeys_nothing(given: str, line: str, lines: str | None) -> None:
    """What stands for a control can be told from text."""
    assert printable(given) == line
    assert printable(given, lines=True) == (line if lines is None else lines)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("for url 'https://u:p%40w@host/a?x=1&token=abc'", "for url 'https://…@host/a?x=1&token=…'"),
        ("redis://:secret@h:1/0 and amqp://guest:guest@h//", "redis://…@h:1/0 and amqp://…@h//"),
        ("https://host/hook?Api_Key=k&n=2", "https://host/hook?Api_Key=…&n=2"),
        ("mail me@example.com, a?b=c", "mail me@example.com, a?b=c"),
        ("violates x\nDETAIL:  Key (a)=(b\nc) exists.\n[SQL: INSERT]", "violates x\nDETAIL:  …\n[SQL: INSERT]"),
        ("[SQL: x]\n[parameters: {'email': 'a@b'}]\n(Background", "[SQL: x]\n[parameters: …]\n(Background"),
        ("(1062, \"Duplicate entry 'a@b' for key 'mail'\")", "(1062, \"Duplicate entry … for key 'mail'\")"),
        ("postgres://bob:P/9?#@db/x and ftp://a:p w@h", "postgres://…@db/x and ftp://…@h"),
        ("at http://host:8080/a?to=me@example.com", "at http://host:8080/a?to=me@example.com"),
        ("http://web:8080, tell ops@example.com", "http://web:8080, tell ops@example.com"),
        ("redis://cache: not known; tell ops@example.com", "redis://cache: not known; tell ops@example.com"),
        ("GET /y?token=PW;jwt=PW&n=2#access_token=PW", "GET /y?token=…;jwt=…&n=2#access_token=…"),
        ('/y?access%5Ftoken=PW&pass="P W"', "/y?access%5Ftoken=…&pass=…"),
        ("host=db password=PW user=ada", "host=db password=… user=ada"),
        ("AWS_SECRET_ACCESS_KEY='P W', prompt_tokens=312", "AWS_SECRET_ACCESS_KEY=…, prompt_tokens=312"),
        ("{'user': 'ada', 'password': 'PW', \"apiKey\": 7}", "{'user': 'ada', 'password': …, \"apiKey\": …}"),
        ("Authorization: Bearer PW12.x", "Authorization: Bearer …"),
        ("{'Authorization': 'Basic UFc='}", "{'Authorization': …}"),
        ("sent with bearer abcd1234efgh, bearer authentication", "sent with bearer …, bearer authentication"),
        ("a AKIAABCDEFGHIJKLMNOP b ghp_abcdefghijklmnopqrstuvwxyz", "a … b …"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.abc-_", "jwt …"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----…-----END RSA PRIVATE KEY-----",
        ),
        (
            "unexpected token: 'x'; key=order-7 author=bob monkey=3",
            "unexpected token: 'x'; key=order-7 author=bob monkey=3",
        ),
    ],
)
def test_secrets_are_left_out(given: str, shown: str) -> None:
    """What is no secret stays."""
    assert without_secrets(given) == shown


@pytest.mark.thorough
def test_no_text_takes_long() -> None:
    """An error may have any text."""
    with at_most(0, slack=20):
        for part in (
            "a.", "://", "a://", "?token", "DETAIL:", "[parameters: ", "http://a?", "Duplicate entry ", " for key Duplicate entry ", "a://b:", "a://b:c/",
            "token=", "token='", "'token': \"", "'token': b'", "authorization: ", "bearer ", "bearer a", "eyJaaaaaaaaa.", "ghp_", "password.", "key=",
            "-----BEGIN PRIVATE KEY-----", "xox", "?a%", "&secret", "tokentoken",
        ):  # fmt: skip
            without_secrets(part * 50_000 + "://")
            without_secrets("a=1?" + part * 50_000 + "@ for key ")


SECRET = "hidden" + "@example.com"  # not as a line of the traceback has it


def test_a_violated_constraint_repeats_no_value(database: Database) -> None:  # noqa: F811
    """Neither its message nor its traceback."""
    with database.session() as session:
        session.execute(text("CREATE TABLE people (email VARCHAR(99) PRIMARY KEY)"))

    def twice() -> None:
        with database.session() as session:
            for _ in range(2):
                session.execute(text("INSERT INTO people VALUES (:email)"), {"email": SECRET})

    with pytest.raises(IntegrityError) as fault:
        twice()
    found = describe("Task", fault.value)
    assert "people" in found.error_message
    assert SECRET not in found.error_message + found.traceback


def test_a_file_that_is_made_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask."""
    path = tmp_path / "sub" / "records.sqlite3"
    records = Database(f"sqlite:///{path}")
    with records.session() as session:
        session.execute(text("CREATE TABLE a (b INTEGER)"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    records.dispose()


def test_a_line_of_the_log() -> None:
    """One line, without secrets; a traceback keeps its lines."""
    record = SafeRecord("a", logging.INFO, "f", 1, "to %s", ("redis://u:p@h\nforged \x1b[2J",), None)
    assert record.getMessage() == "to redis://…@h\\nforged \\x1b[2J"
    error = ValueError("redis://u:p@h \x1b[2J")
    record.exc_info = (ValueError, error, None)
    lines = logging.Formatter().format(record).splitlines()
    assert lines[-1] == "ValueError: redis://…@h \\x1b[2J"


def test_what_a_job_returned_is_in_no_part_of_a_line() -> None:
    """Also where a handler writes the parts."""
    told: list[tuple[str, dict[str, str]]] = []
    as_our_line(lambda text, parts: told.append((text, parts)))("%(id)s", {"id": "7", "return_value": "x"})
    assert told == [("%(id)s", {"id": "7"})]


def test_json_says_the_same_with_escapes() -> None:
    """It can be read, and steers no terminal."""
    assert json_of({"a": "お\u202e\x9b\x1b\n\ud800\U000e0001"}) == (
        '{"a": "お\\u202e\\u009b\\u001b\\n\\ud800\\udb40\\udc01"}'
    )
