"""What a stolen key has signed is held until somebody has looked at it, and a key is taken away when nothing needs it (R20)."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery import chain
from click.testing import CliRunner, Result

from conventions import ImmediateTask, acting_as
from conventions.app import ConventionsApp
from conventions.broker.header_names import ENQUEUED_AT, SIGNATURE
from conventions.broker.redis_broker import HeldMessage
from conventions.cli.keys import keys
from conventions.cli.messages import messages as messages_command
from conventions.core.errors import ConfigurationError
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.core.settings import Settings
from conventions.dead_letters.resend import redrive
from conventions.records.audit_entry import AuditEntry
from conventions.storage.tables import AuditRow, DeadLetterRow
from tests.recorded import contents, drain, recorder
from tests.support import wait_until
from tests.workers import Installation, acting_through, application, forget, letters, wait_until_empty

NEW, OLD, OLDER = new_key("new"), new_key("old"), new_key("older")
KEYS = f"{NEW},{OLD},{OLDER}"
HOUR = timedelta(hours=1)


class Note(ImmediateTask):
    """Note who says what."""

    idempotent_on = ("text",)

    def run(self, text: str) -> None:
        self.app.store.redis.rpush(self.app.store.key("noted"), f"{text} by {self.actor}")


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """With the keys in their new order."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "message_keys": KEYS}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], key_prefix=f"t{uuid4().hex[:8]}", **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Of an operator: it signs with the new key."""
    with installation.application() as app, acting_through(app):
        yield app
        forget(app.store)


@contextmanager
def signing_with(installation: Installation, key: str) -> Iterator[ConventionsApp]:
    """A sender that has not got the new key as the first one yet; or a thief."""
    others = ",".join(one for one in (NEW, OLD, OLDER) if one != key)
    with (
        application([__name__], **installation.settings | {"message_keys": f"{key},{others}"}) as app,
        acting_as("u-1"),
    ):
        yield app


def noted(app: ConventionsApp) -> list[str]:
    """What has run."""
    found: Any = app.store.redis.lrange(app.store.key("noted"), 0, -1)
    return [one.decode() for one in found]


def run(app: ConventionsApp, *arguments: str, command: Any = keys) -> Result:
    """A command, as a shell runs it."""
    return CliRunner().invoke(command, arguments, obj=SimpleNamespace(app=app))


def test_a_worker_holds_what_a_stolen_key_has_signed(installation: Installation, app: ConventionsApp) -> None:
    """From the moment of the theft on, and all of it: whoever redrives it lets it go on as it was sent."""
    now = datetime.now(UTC)
    revoked = f"old@{(now - HOUR).isoformat()},older@{(now + HOUR).isoformat()}"
    with signing_with(installation, OLDER) as sender, acting_through(sender):
        Note.delay(text="before the theft")
    with signing_with(installation, OLD) as sender, acting_through(sender):
        first = chain(Note.s(text="first"), Note.si(text="second")).apply_async()
        held = first.parent.id
    with installation.worker(CONVENTIONS_REVOKED_KEYS=revoked):
        (letter,) = wait_until(lambda: letters(app), 30)
        assert (letter.id, letter.error, letter.actor) == (held, "KeyRevoked", "u-1")
        assert (
            f"the key old, which was revoked for what was sent since {(now - HOUR).isoformat()}" in letter.error_message
        )
        wait_until(lambda: noted(app), 20)
        wait_until_empty(app)
        assert noted(app) == ["before the theft by u-1"]
        assert redrive(app, held, "ann")
        wait_until(lambda: len(noted(app)) == 3, 20)
        wait_until_empty(app)
    assert noted(app)[1:] == ["first by u-1", "second by u-1"]


def test_what_waits_is_held_at_once(installation: Installation, app: ConventionsApp) -> None:
    """By a command: what was sent since then and is signed with that key, whether it is due or not; and nothing else."""
    app.database.upgrade()
    with signing_with(installation, OLD) as sender, acting_through(sender):
        tenant = {"tenant": datetime.now(UTC)}  # a header of a type that JSON lacks
        ids = [
            Note.apply_async(kwargs={"text": "due"}, headers=tenant).id,
            Note.apply_async(kwargs={"text": "later"}, countdown=3600).id,
        ]
        form = sender.signatures
        before, altered = Note.delay(text="before").id, Note.delay(text="altered").id
    Note.delay(text="of the new key")
    change(app, before, lambda headers: headers | {ENQUEUED_AT: (datetime.now(UTC) - 2 * HOUR).isoformat()}, form)
    change(app, altered, lambda headers: headers | {"x_actor": "ceo"})
    found = run(
        app, "revoke", "old", "--since", "1h", "--reason", "a laptop is gone", "--actor", "ann", "--yes", "--json"
    )
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert (told["held"], told["left"]) == (2, 0)
    assert told["setting"].startswith("CONVENTIONS_REVOKED_KEYS=old@")
    assert told["setting"] in found.stderr
    drain(recorder(app.store, app.database))
    rows = contents(app.database, DeadLetterRow)
    assert {row["id"]: (row["error"], row["actor"], row["attempts"]) for row in rows} == dict.fromkeys(
        ids, ("KeyRevoked", "u-1", 0)
    )
    assert {row["arguments"]["text"] for row in rows} == {"due", "later"}
    notes = [row for row in contents(app.database, AuditRow) if row["action"] == "keys revoke"]
    assert [(row["actor"], row["reason"], row["before"]["signed_with"]) for row in notes] == [
        ("ann", "a laptop is gone", "old")
    ]
    listed = json.loads(run(app, "list", "--json").stdout)
    assert [(one["key"], one["use"], one["waiting"]) for one in listed] == [
        ("new", "signs", 1), ("old", "verifies", 2), ("older", "verifies", 0),
    ]  # fmt: skip
    later = run(app, "revoke", "old", "--since", "10m", "--reason", "once more", "--yes", "--json")
    assert json.loads(later.stdout)["held"] == 0
    assert redrive(app, ids[1], "ann")
    with installation.worker(CONVENTIONS_REVOKED_KEYS=told["setting"].partition("=")[2]):
        wait_until(lambda: len(noted(app)) == 3, 20)
        wait_until_empty(app)
    assert sorted(noted(app)) == ["before by u-1", "later by u-1", "of the new key by system"]


def change(
    app: ConventionsApp, id_: str, how: Callable[[dict[str, Any]], dict[str, Any]], signatures: Any = None
) -> None:
    """Change a message that waits, as whoever reaches Redis can; with `signatures`, also as whoever has the key."""
    redis: Any = app.store.redis
    key = app.store.key("message", id_)
    value = redis.get(key)
    at = value.index(b"{")
    message = json.loads(value[at:])
    message["headers"] = how(message["headers"])
    if signatures is not None:
        message["headers"] = signatures.signed(
            {name: one for name, one in message["headers"].items() if name != SIGNATURE},
            message["content-type"], message["content-encoding"], b64decode(message["body"]),
        )  # fmt: skip
    redis.set(key, value[:at] + json.dumps(message).encode(), keepttl=True)


def test_a_key_that_is_still_needed(installation: Installation, app: ConventionsApp) -> None:
    """A message that waits needs it, and so does one that a worker has taken; after them nobody does."""
    with signing_with(installation, OLD) as sender, acting_through(sender):
        Note.delay(text="one")
    found = run(app, "retire", "old")
    assert found.exit_code == 1
    assert "old is still needed: 1 messages wait or run that it has signed" in found.stderr
    assert (
        json.loads(run(app, "list", "--signed-with", "old", "--json", command=messages_command).stdout)[0]["actor"]
        == "u-1"
    )
    (delivery,) = app.broker.reserve(["immediate"], 1)
    assert run(app, "retire", "old").exit_code == 1
    assert app.broker.acknowledge([HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)]) == 1
    with signing_with(installation, OLD) as sender:
        sender.journal.note(AuditEntry("ann", "cancel", "m1"))
    found = run(app, "retire", "old")
    assert (found.exit_code, "1 entries of the journal are not in SQL yet" in found.stderr) == (1, True)
    app.store.redis.delete(app.journal.key)
    found = run(app, "retire", "old")
    assert found.exit_code == 0
    assert found.stdout.startswith("nothing waits that old has signed: take it out of CONVENTIONS_MESSAGE_KEYS")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retire", "new"), "new signs new messages: put a new key before it in CONVENTIONS_MESSAGE_KEYS"),
        (("retire", "none"), "there is no key none; there are: new, old, older"),
        (("revoke", "new", "--since", "1h", "--reason", "x", "--yes"), "new signs new messages"),
        (("revoke", "old", "--since", "yesterday", "--reason", "x", "--yes"), "is no time"),
        (("new", "old"), "there is a key old; a name is never used again"),
        (("new", "a b"), "up to 16 letters, digits, - and _"),
    ],
)
def test_what_cannot_be_done_says_why(app: ConventionsApp, arguments: tuple[str, ...], said: str) -> None:
    """Before anything is done."""
    found = run(app, *arguments)
    assert found.exit_code == 2
    assert said in found.output


def test_a_new_key(app: ConventionsApp) -> None:
    """It is a part of the setting, and it alone is on standard output."""
    found = run(app, "new", "next")
    assert list(MessageKeys.parse(found.stdout.strip())) == ["next"]
    assert "as the second key" in found.stderr


@pytest.mark.parametrize(
    ("revoked", "fault"),
    [
        ("new@2026-12-24T10:00+09:00", "the key new signs new messages: put a new key before it in message_keys"),
        ("old@2026-12-24T10:00", "the moment of old has no zone"),
        ("old@soon", "the moment of old cannot be read"),
        ("old", "write name@moment, separated by commas"),
    ],
)
def test_a_setting_that_is_wrong(revoked: str, fault: str) -> None:
    """It is said at the start."""
    with pytest.raises(ConfigurationError, match=fault):
        Settings.load(message_keys=KEYS, revoked_keys=revoked)
    assert Settings.load(message_keys=KEYS, revoked_keys="gone@2026-12-24T10:00+09:00").revoked_keys, (
        "a key may be taken out"
    )
