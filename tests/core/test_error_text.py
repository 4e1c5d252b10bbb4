"""What is kept of an error: text that every database and JSON takes, and a fingerprint of its cause (R18)."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from conventions.core.error_text import NAME_LENGTH, clean, cut, describe, first_line
from conventions.core.errors import IdempotencyConflict
from conventions.core.failure_fingerprint import fingerprint, place_in
from conventions.storage.database import Database
from tests.failures import charge_card, look_up, raised_by


def parse_answer() -> None:
    """A cause whose innermost frame is Python's own."""
    json.loads("no json")


def parse_file() -> None:
    """Another one."""
    json.loads("{")


def place(function: Callable[[], object]) -> str:
    """The fingerprint of a function's error."""
    return fingerprint("Send", raised_by(function))


def test_an_error_is_described_by_class_text_and_traceback() -> None:
    """With the errors it was raised from."""

    def fail() -> None:
        try:
            charge_card()
        except Exception as error:
            raise LookupError("no card") from error

    found = describe("Send", raised_by(fail))
    assert (found.error, found.error_message) == ("LookupError", "no card")
    assert "in charge_card" in found.traceback
    assert "direct cause" in found.traceback
    assert found.fingerprint == fingerprint("Send", raised_by(fail)) != fingerprint("Other", raised_by(fail))


class Leaving(Exception):
    """An error whose text ends the process, if nobody catches that."""

    def __str__(self) -> str:
        raise SystemExit(1)


class Speechless(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a NUL: \0"), "a NUL: \\0"),
        (ValueError("half: \ud800 é"), "half: \\ud800 é"),
        (Speechless(), "<its text cannot be read: RuntimeError>"),
        (Leaving(), "<its text cannot be read: SystemExit>"),
        (KeyboardInterrupt(), ""),
    ],
    ids=["nul", "half", "speechless", "leaving", "interrupt"],
)
def test_an_odd_error_is_described(error: BaseException, message: str) -> None:
    """Nothing in it is what a database or UTF-8 refuses."""
    found = describe(None, error)
    assert found.error_message == message
    for kept in (found.error, found.error_message, found.traceback, found.fingerprint):
        assert "\0" not in kept
        kept.encode()


def test_names_fit_into_their_columns() -> None:
    """Cut after they were made clean, since an escape is longer than what it stands for."""
    assert len(describe("t", type("E" * 300, (Exception,), {})()).error) == NAME_LENGTH
    assert len(cut("\ud800" * 100)) == NAME_LENGTH
    assert clean("é\t\n") == "é\t\n"


def test_a_task_with_half_a_character_has_a_fingerprint() -> None:
    """A foreign message names its task as it likes."""
    assert len(fingerprint("\ud800", ValueError())) == 16


def test_causes_that_meet_in_python_s_own_library_are_told_apart() -> None:
    """The innermost frame of our code counts, not json's decoder."""
    assert place(parse_answer) != place(parse_file)
    assert place(parse_answer) == place(parse_answer)


def test_a_fingerprint_survives_a_moved_line_and_another_process() -> None:
    """It has no line number and no hash of this process in it."""
    source = "def run():\n    raise ValueError('x')\n"
    one, two = (compile(prefix + source, "/srv/jobs.py", "exec") for prefix in ("", "\n\n# moved\n"))

    def fails(code: Any) -> Callable[[], None]:
        namespace: dict[str, Any] = {"__name__": "jobs"}
        exec(code, namespace)
        return namespace["run"]  # type: ignore[no-any-return]  # made just now

    assert place(fails(one)) == place(fails(two)) == "69c28b6a111cdb5a"


def test_a_fingerprint_survives_the_move_of_a_file_of_ours() -> None:
    """A group of dead letters of one cause does not fall in two at an upgrade. A team's own modules are told apart."""

    def place_in(module: str) -> str:
        namespace: dict[str, Any] = {"__name__": module}
        exec(compile("def run():\n    raise ValueError('x')\n", "/srv/file.py", "exec"), namespace)
        return place(namespace["run"])

    assert place_in("conventions.payload") == place_in("conventions.declare.arguments") != place_in("shop.payload")
    assert place_in("shop.payload") != place_in("shop.declare.payload")


def charge(step: int) -> None:
    """Four causes of one type in one function, and one that is told by its arguments alone."""
    if step == 0:
        raise LookupError("no card")
    if step == 1:
        raise LookupError("no account")
    raise LookupError(step)


def test_lines_of_one_function_are_told_apart() -> None:
    """They fail for other reasons, though the function and the type are the same; values make no cause."""
    found = [place(lambda step=step: charge(step)) for step in range(4)]  # type: ignore[misc]  # mypy cannot see the default
    assert len(set(found)) == 3
    assert found[2] == found[3]


def test_the_place_of_a_cause_is_told() -> None:
    """The innermost line that is not a library's."""
    told = place_in(describe("Send", raised_by(parse_answer)).traceback)
    assert re.fullmatch(r"test_error_text\.py:\d+ in parse_answer", told)


def test_a_place_is_of_the_error_and_not_of_its_text() -> None:
    """An error may repeat the traceback of another program; of several errors the last one counts."""

    def fail() -> None:
        try:
            charge_card()
        except Exception as error:
            text = 'Traceback (most recent call last):\n  File "far.py", line 1, in away\nKeyError: 1\n  File "far.py", line 2, in x'
            raise LookupError(text) from error

    assert place_in(describe("Send", raised_by(fail)).traceback).endswith("in fail")
    assert place_in("no traceback") == place_in("") == ""


def test_errors_of_other_types_at_one_place_are_other_causes() -> None:
    """The type is part of the cause."""

    def fail(cls: type[Exception]) -> None:
        raise cls

    assert place(lambda: fail(ValueError)) != place(lambda: fail(TypeError))
    assert place(look_up) != place(charge_card)
    assert fingerprint("Send", IdempotencyConflict("never raised"))


def test_a_table_of_ours_that_is_missing(tmp_path: Path, postgres_url: str) -> None:
    """The line says what makes it, on each database; of other tables it says nothing."""
    for url in (f"sqlite:///{tmp_path / 'empty.sqlite3'}", postgres_url):
        database = Database(url)
        for table, told in (("conventions_executions", True), ("orders", False)):
            with pytest.raises(SQLAlchemyError) as caught, database.session() as session:
                session.execute(text(f"SELECT * FROM {table}"))
            assert first_line(caught.value).endswith("; `celery -A <app> db upgrade` makes it") is told
        database.dispose()
