"""A line of the log as JSON: what is in it, whatever was logged."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from conventions.execution.attempt import Attempt
from conventions.execution.failure_log import log_failure, log_refusal
from conventions.execution.json_log import JsonFormatter
from conventions.execution.log_redaction import make_safe

JOB = Attempt("m-1", "shop.Charge", {}, "m-1", "", "7", attempt=2, planned_at=None, counts={})


@pytest.fixture
def lines() -> Any:
    """The lines of a logger, written by our formatter."""
    written: list[dict[str, Any]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = self.format(record)
            assert "\n" not in text
            text.encode("utf-8")
            written.append(json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")))

    make_safe()
    handler, root = Keeping(), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


logger = logging.getLogger("shop")


def test_what_every_line_has(lines: list[dict[str, Any]]) -> None:
    """The moment is in UTC, and says so."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    logger.warning("%d orders from %s", 3, "東京")
    (line,) = lines
    moment = datetime.fromisoformat(line.pop("time"))
    assert before <= moment <= datetime.now(UTC)
    assert line == {"level": "WARNING", "logger": "shop", "process": "MainProcess", "message": "3 orders from 東京"}


def test_a_failure_has_its_parts(lines: list[dict[str, Any]]) -> None:
    """The same as the text says, one by one."""
    log_failure(JOB, ValueError("no\nbalance at https://me:hunter2@pay.example"), "again in 4 s")
    log_refusal("m-2", None, KeyError("task"))
    failed, refused = [{name: line[name] for name in list(line)[5:]} for line in lines]
    assert failed == {
        "event": "failed", "id": "m-1", "task": "shop.Charge", "error": "ValueError", "attempt": 2, "next_step": "again in 4 s", "actor": JOB.actor,
        "error_message": "no balance at https://…@pay.example",
    }  # fmt: skip
    assert refused == {
        "event": "refused", "id": "m-2", "task": None, "error": "KeyError", "error_message": "'task'", "next_step": "dead letter"
    }  # fmt: skip
    assert lines[0]["message"] == (
        "failed: id=m-1 task=shop.Charge error=ValueError: no balance at https://…@pay.example attempt=2 actor=7: again in 4 s"
    )
    assert lines[1]["message"] == "refused: id=m-2 task=None error=KeyError: 'task': dead letter"


def test_a_traceback(lines: list[dict[str, Any]]) -> None:
    """Its lines are in one field, without secrets."""
    try:
        int("https://me:hunter2@pay.example")
    except ValueError:
        logger.exception("charged nobody")
    assert lines[0]["message"] == "charged nobody"
    assert lines[0]["traceback"].startswith("Traceback (most recent call last):\n")
    assert lines[0]["traceback"].endswith("base 10: 'https://…@pay.example'")


class Unreadable:
    """An object of a team."""

    def __str__(self) -> str:
        raise RuntimeError


CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE

EXTRAS: dict[str, tuple[Any, Any]] = {
    "numbers": ({"a": 1, "b": 1.5, "c": True, "d": None}, {"a": 1, "b": 1.5, "c": True, "d": None}),
    "what JSON has no number for": (float("nan"), "nan"),
    "money": (Decimal("1.10"), "1.10"),
    "a secret": (["https://me:hunter2@pay.example"], ["https://…@pay.example"]),
    "half a character": ("\ud800", "\\ud800"),
    "what turns text around": ("\u202egnp", "\\u202egnp"),
    "unreadable": (Unreadable(), "<its text cannot be read: RuntimeError>"),
    "other keys": ({1: 2, None: 3}, {"1": 2, "None": 3}),
}


@pytest.mark.parametrize(("given", "written"), EXTRAS.values(), ids=EXTRAS)
def test_what_a_team_adds(lines: list[dict[str, Any]], given: Any, written: Any) -> None:
    """`extra` becomes a field, in a form that JSON has."""
    logger.warning("paid", extra={"order": given})
    assert lines[0]["order"] == written


def test_what_holds_itself(lines: list[dict[str, Any]]) -> None:
    """The line is written all the same."""
    logger.warning("paid", extra={"order": CYCLE})
    assert "{...}" in json.dumps(lines[0]["order"])


class Raises(dict[str, Any]):
    """A mapping of a team."""

    def items(self) -> Any:
        raise OSError("gone")


def made(message: str, *args: Any, **attributes: Any) -> logging.LogRecord:
    """A record as a logger makes it; none is called, since pytest's own handlers raise at these."""
    make_safe()
    record = logging.getLogRecordFactory()("shop", 30, "", 1, message, args, None)
    vars(record).update(attributes)
    return record


AWKWARD: dict[str, Callable[[], logging.LogRecord]] = {
    "a form that does not fit": lambda: made("%d orders", "three"),
    "an argument without a text": lambda: made("paid %s", Unreadable()),
    "a mapping that raises": lambda: made("paid", order=Raises(a=1)),
    "no moment": lambda: made("paid", created=float("inf")),
    "no error": lambda: made("paid", exc_info=True),
}


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_an_awkward_record_is_one_line_all_the_same(make: Callable[[], logging.LogRecord]) -> None:
    """With what can be said of it, and why it is not more."""
    text = JsonFormatter().format(make())
    assert "\n" not in text
    line = json.loads(text)
    assert (line["logger"], line["level"]) == ("shop", "WARNING")
    assert line["message"] in {"%d orders", "paid %s", "paid"}
    assert line["log_fault"]


def test_a_record_of_another_factory_tells_no_secret(lines: list[dict[str, Any]]) -> None:
    """As one that comes from a queue; and a secret in the name of a field."""
    record = logging.LogRecord("shop", 30, "", 1, "at https://me:hunter2@pay.example", (), None)
    vars(record)["redis://me:hunter2@host"] = "\ud800"
    logger.handle(record)
    assert "hunter2" not in json.dumps(lines[0])
    assert lines[0]["message"] == "at https://…@pay.example"


def test_a_number_that_python_does_not_write(lines: list[dict[str, Any]]) -> None:
    """It is not there, and the line is."""
    logger.warning("paid", extra={"order": 10**5000, "of": 10**200})
    assert lines[0]["order"].startswith("<its text cannot be read")
    assert lines[0]["of"] == 10**200


def test_what_a_team_adds_replaces_nothing(lines: list[dict[str, Any]]) -> None:
    """A program that collects logs can rely on our fields."""
    logger.warning("paid", extra={"level": "high", "time": "noon", "data": {"kept": 1}})
    assert (lines[0]["level"], lines[0]["message"], lines[0]["data"]) == ("WARNING", "paid", {"kept": 1})
    assert (lines[0]["extra_level"], lines[0]["extra_time"]) == ("high", "noon")


def test_arguments_that_celery_adds_are_left_out(lines: list[dict[str, Any]]) -> None:
    """They may be personal; what its line says is there."""
    told = {
        "id": "m-1",
        "name": "shop.Charge",
        "runtime": 0.25,
        "args": "('4111 1111',)",
        "kwargs": "{}",
        "return_value": "paid",
    }
    logging.getLogger("celery.app.trace").warning("done", extra={"data": told})
    assert list(lines[0].items())[5:] == [("id", "m-1"), ("task", "shop.Charge"), ("runtime", 0.25)]
