"""No way to send takes a credential; nothing of it leaves, and no error shows it (R20)."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

import celery
import pytest
from celery import chain, chord, group

from conventions import EVERY_ARGUMENT, BatchTask, CredentialInPayload, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.header_names import KEY
from conventions.core.errors import DeclarationError
from conventions.dead_letters.edit import edit
from conventions.execution.unsent_step import UnsentStep
from conventions.storage.tables import DeadLetterRow
from tests.failures import failure, record
from tests.recorded import contents, drain, recorder
from tests.workers import messages

SECRET = "xoxb-" + "123456789012-abcdefghijklmnop"


class Call(ImmediateTask):
    """Call a service."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, user_id: int, options: dict[str, Any] | None = None, note: str = "") -> None:
        """Nothing runs here."""


class Turn(ImmediateTask):
    """Turn a page."""

    idempotent_on = EVERY_ARGUMENT
    allowed_credentials: ClassVar = {"cursor_secret": "of a test", "rows[].token": "says where a listing goes on"}

    def run(self, rows: list[dict[str, Any]], cursor_secret: str = "") -> None:
        """Nothing runs here."""


class Rows(BatchTask):
    """Read rows."""

    idempotent_on = EVERY_ARGUMENT

    def items(self, source: str) -> list[str]:
        return [source]

    def process(self, chunk: list[str], source: str) -> None:
        """Nothing runs here."""


WAYS: dict[str, tuple[str, Callable[[ConventionsApp], Any]]] = {
    "delay": ("note", lambda _: Call.delay(1, note=f"use {SECRET}")),
    "a name": ("options.api_key", lambda _: Call.delay(1, {"api_key": "hunter2-hunter2"})),
    "apply_async": ("options.a.b[].token", lambda _: Call.apply_async((1,), {"options": {"a": {"b": [{"token": SECRET}]}}})),
    "by name": ("note", lambda app: app.send_task(Call.name, kwargs={"user_id": 1, "note": SECRET})),
    "many": ("note", lambda _: Call.enqueue_many([{"user_id": 1, "note": ""}, {"user_id": 2, "note": SECRET}])),
    "batch": ("source", lambda _: Rows.delay(source=f"https://ann:{SECRET}@example.com/rows")),
    "signature": ("note", lambda _: Call.s(1, note=SECRET).delay()),
    "group": ("note", lambda _: group([Call.s(2, note=SECRET)]).delay()),
    "link": ("note", lambda _: Call.apply_async((1,), link=Call.si(2, note=SECRET))),
    "errback": ("note", lambda _: Call.apply_async((1,), link_error=Call.si(2, note=SECRET))),
    "a link of a link": ("args[]", lambda _: Call.apply_async((1,), link=celery.signature("other.task", (2,), link=celery.signature("third.task", (SECRET,))))),
    "chain": ("note", lambda _: chain(Call.si(1), Call.si(2), Call.si(3, note=SECRET)).delay()),
    "chord": ("note", lambda _: chord([Call.si(1)], Call.si(2, note=SECRET)).delay()),
    "starmap": ("note", lambda _: Call.starmap([(1, None, SECRET)]).delay()),
    "headers": ("headers.x_request.authorization", lambda _: Call.apply_async((1,), headers={"x_request": {"authorization": "hunter2-hunter2"}})),
    "key": ("idempotency_key", lambda _: Call.apply_async((1,), idempotency_key=SECRET)),
    "actor": ("actor", lambda _: Call.apply_async((1,), actor=SECRET)),
    "actor of a function": ("actor", lambda app: app.send_task("other.function", actor=SECRET)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_way_takes_one(app: ConventionsApp, way: str) -> None:
    """The error names the path and what to do; no message has left."""
    path, send = WAYS[way]
    with pytest.raises(CredentialInPayload) as refused:
        send(app)
    assert path in str(refused.value)
    assert not any(one in str(refused.value) for one in (SECRET, "hunter2"))
    assert not [one for one in messages(app) if SECRET in json.dumps([one.arguments, one.headers, one.following])]
    assert len(messages(app)) == 0


def test_what_a_class_allows(app: ConventionsApp) -> None:
    """By path; nothing else."""
    Turn.delay([{"token": "abc"}], cursor_secret="abc")
    with pytest.raises(CredentialInPayload, match=r"rows\[\]\.password"):
        Turn.delay([{"token": "abc", "password": "abc"}])
    assert len(messages(app)) == 1


def test_what_a_class_allows_in_a_step(app: ConventionsApp) -> None:
    """By name and by place, also within a group; with a result before it, and without headers."""
    rows = [{"token": "abc"}]
    for step in (
        Turn.si(rows),
        Turn.s("abc").set(headers=None),  # after the result of the first step, which is `rows`
        Turn.si(rows=rows, cursor_secret="abc"),
        group([Turn.si(rows, "abc"), Turn.si(rows)]),
    ):
        Call.apply_async((1,), link=step)
    with pytest.raises(CredentialInPayload, match=r"rows\[\]\.password"):
        Call.apply_async((1,), link=group([Turn.si([{"password": "abc"}])]))
    assert len(messages(app)) == 4


def test_what_a_batch_allows() -> None:
    """Its parts do, too: they carry its arguments below another name."""

    class Allowed(BatchTask):
        """Read rows."""

        idempotent_on = EVERY_ARGUMENT
        allowed_credentials: ClassVar = {"source": "an address without a login", "items[].token": "a cursor"}

        def items(self, source: str) -> list[str]:
            return [source]

        def process(self, chunk: list[str], source: str) -> None:
            """Nothing runs here."""

    for part in (Allowed.chunk_task, Allowed.finish_task, Allowed.recovered_task):
        assert {"source", "arguments.source", "items[].token"} <= part.allowed_credentials.keys()


def test_an_edit_of_a_letter(app: ConventionsApp) -> None:
    """Nor does the letter take it."""
    arguments = {"user_id": 7, "options": None, "note": ""}
    record(app.database, failure("m1", task=Call.name, arguments=arguments))
    with pytest.raises(CredentialInPayload, match="note"):
        edit(app, "m1", arguments | {"note": SECRET}, "ann")
    with app.database.session() as session:
        assert session.get_one(DeadLetterRow, "m1").arguments == arguments


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "the argument api_key is named like a credential"),
        ({"allowed_credentials": {"api_key": " "}}, "says why"),
        ({"allowed_credentials": ("api_key",)}, "is paths with reasons"),
        ({"allowed_credential": {"api_key": "why"}}, "write allowed_credentials = "),
    ],
)
def test_a_declaration(values: dict[str, Any], says: str) -> None:
    """An argument of such a name is refused when the class is made, unless it says why."""

    def run(self: Any, api_key: str) -> None:
        """Nothing runs here."""

    make: Any = type(ImmediateTask)
    made = {"__doc__": "Call.", "__module__": __name__, "idempotent_on": EVERY_ARGUMENT, "run": run}
    with pytest.raises(DeclarationError, match=says):
        make("Declared", (ImmediateTask,), made | values)
    make("Declared", (ImmediateTask,), made | {"allowed_credentials": {"api_key": "the name of one"}})


def test_the_letter_of_a_step_that_is_refused(app: ConventionsApp) -> None:
    """It says what was there, and holds nothing of it; nobody can send it as it is."""
    step = UnsentStep(app, Call.name, "m1", (1,), {"note": SECRET}, {}, {KEY: SECRET})
    step.refuse(CredentialInPayload("the argument note looks like a token of Slack"))
    drain(recorder(app.store, app.database))
    (row,) = contents(app.database, DeadLetterRow)
    assert SECRET not in json.dumps(row, default=str)
    assert (row["error"], row["arguments"]["note"]) == ("CredentialInPayload", "(left out: a token of Slack)")
    with pytest.raises(CredentialInPayload, match="what was left out"):
        edit(app, "m1", row["arguments"] | {"user_id": 2}, "ann")
    assert edit(app, "m1", row["arguments"] | {"note": "none"}, "ann")
