"""What a worker believes of a message, and what may have changed of it on its way."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.broker.header_names import (
    ACTOR,
    COUNTS,
    FINGERPRINT,
    GENERATION,
    KEY,
    PARKED,
    READY_AT,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_SINCE,
)
from conventions.broker.signature import Signatures
from conventions.core.errors import SignatureRefused
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.worker.sender_check import SenderCheck

NOW = datetime(2026, 12, 1, tzinfo=UTC)
CONTENT = ("application/json", "utf-8")
SIGNATURES = Signatures(MessageKeys.parse(new_key("a")))
CHECK = SenderCheck(SIGNATURES, ["legacy"], is_splitter=lambda name: name == "mine.Rows")
EARLY = SenderCheck(SIGNATURES, ["legacy"], NOW + timedelta(seconds=1), now=lambda: NOW)
LATE = SenderCheck(SIGNATURES, ["legacy"], NOW, now=lambda: NOW)
SENT: dict[str, Any] = {
    "task": "mine.Pay", "id": "m", "retries": 0, "eta": None, "expires": None, ACTOR: "u-1", KEY: "k", FINGERPRINT: "f"
}  # fmt: skip


def looked(
    check: SenderCheck, sent: dict[str, Any], changes: dict[str, Any] | None = None, queue: str = "immediate"
) -> dict[str, Any]:
    """What it believes of a message that was sent so, with what lies beside it."""
    delivery = {"changes": changes, "sent": {name: sent.get(name) for name in changes}} if changes else {}
    return check.look({**sent, **(changes or {})}, delivery, CONTENT, b"[]", queue)


def signed(**more: Any) -> dict[str, Any]:
    """A signed message."""
    return SIGNATURES.signed({**SENT, **more}, *CONTENT, b"[]")


ALLOWED: dict[str, Any] = {
    "retries": 3, "eta": "2026-12-01T00:00:00+00:00", COUNTS: {"OSError": 3}, PARKED: 2, READY_AT: "2026-12-01T00:00:00+00:00", UNKNOWN: 2,
    UNKNOWN_SINCE: "2026-12-01T00:00:00+00:00", KEY: "k", FINGERPRINT: "f", ACTOR: "u-1", "expires": None,
}  # fmt: skip


def test_what_may_change() -> None:
    """All that an attempt writes for the next one."""
    sent = signed()
    assert looked(CHECK, sent, ALLOWED) == {**sent, **ALLOWED}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "another") for name in ("id", "task", "timelimit", ACTOR, KEY, FINGERPRINT, SIGNATURE, "tenant", "expires", "compression")),
        (GENERATION, 2), ("retries", -1), ("retries", "1"), (COUNTS, "many"), (COUNTS, {"a": -1}), (PARKED, None), (READY_AT, "soon"), ("eta", 7),
    ],
)  # fmt: skip
def test_what_may_not_change(name: str, value: Any) -> None:
    """Nothing else, and nothing of another form."""
    with pytest.raises(SignatureRefused):
        looked(CHECK, signed(), {name: value})


def test_an_expiry() -> None:
    """Only a splitter that has begun in time goes on after it."""
    expires = "2026-12-01T00:00:00+00:00"
    assert looked(CHECK, signed(task="mine.Rows", expires=expires), {"expires": None})["expires"] is None
    with pytest.raises(SignatureRefused):
        looked(CHECK, signed(expires=expires), {"expires": None})


def test_what_its_sender_has_not_reckoned() -> None:
    """Such as the key of a task that it knows by name alone: what an attempt has written down is not believed, and does no harm."""
    sent = SIGNATURES.signed(
        {name: one for name, one in SENT.items() if name not in (KEY, FINGERPRINT)}, *CONTENT, b"[]"
    )
    assert looked(CHECK, sent, {KEY: "of a victim", FINGERPRINT: "f", "retries": 1}) == {**sent, "retries": 1}


def test_who_need_not_sign() -> None:
    """Queues for others, which say nothing of themselves; and everybody until a moment."""
    plain = {**SENT, "tenant": "t-1", "retries": 0}
    others = {
        "task": "mine.Pay",
        "id": "m",
        "retries": 2,
        "eta": None,
        "expires": None,
        "tenant": "t-1",
        ACTOR: "unsigned",
    }
    assert looked(CHECK, plain, {"retries": 2, KEY: "k"}, "legacy") == others
    assert looked(EARLY, plain) == plain
    for check, queue in ((CHECK, "immediate"), (LATE, "immediate")):
        with pytest.raises(SignatureRefused, match="it is not signed"):
            looked(check, plain, queue=queue)
    for check in (CHECK, EARLY):
        with pytest.raises(SignatureRefused, match="altered"):
            looked(check, {**signed(), ACTOR: "ceo"}, queue="legacy")
        with pytest.raises(SignatureRefused, match="name no task"):
            looked(check, {ACTOR: "ceo"}, queue="legacy")


def test_what_cannot_be_read() -> None:
    """Whatever it is, it is refused, and ends no worker."""
    for odd in (
        {"timelimit": [10**400, None]},
        {"timelimit": [object(), 1]},
        {"x_batch": {1: object()}},
        {"x_conventions_signed": [["a"]]},
    ):
        with pytest.raises(SignatureRefused):
            looked(CHECK, {**signed(), **odd})
