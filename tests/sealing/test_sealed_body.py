"""`Outgoing` seals, `SealedBody` opens: a body belongs to one message, and to all of it that is signed (R21)."""

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from conventions.broker.codec import FORM, SEALED_FORM
from conventions.broker.header_names import SEALED, SIGNATURE, SIGNED
from conventions.broker.signature import OWN, Signatures
from conventions.core.errors import CannotOpen, CannotSeal
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.sealing.kept_message import sealed_in, sealed_message
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.seal_outgoing import Outgoing, Parts
from conventions.sealing.sealed_body import (
    CONTENT,
    SEALED_BODY,
    UNOPENED,
    BodyOfFunction,
    SealedBody,
    follows,
    open_with,
)

KEYS = PayloadKeys.parse(new_key("p"))
SIGNATURES = Signatures(MessageKeys.parse(new_key("m")))
STEPS: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
BODY = json.dumps([[], {"ssn": "123"}, STEPS]).encode()
HEADERS: dict[str, Any] = {
    "id": "m-1", "task": "mine.Pay", "x_key": "k", "x_fingerprint": "f", "x_actor": "ann", "x_enqueued_at": "2026-12-01T00:00:00+00:00",
    "timelimit": [60, 30], "tenant": "t-1", SEALED: "-",
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys_of_this_process() -> Iterator[None]:
    """As in a worker."""
    open_with(KEYS)
    yield
    open_with(None)


def sent(outgoing: Outgoing | None = None, **changes: Any) -> Parts:
    """A message as it goes out."""
    message = Parts({**HEADERS, **changes}, "application/json", "utf-8", BODY)
    return (outgoing or Outgoing(SIGNATURES, KEYS)).finished(message)


@pytest.mark.parametrize("signatures", [SIGNATURES, None])
def test_a_message_is_sealed_and_opens(signatures: Signatures | None) -> None:
    """Signed or not; all of its body, by another process, too."""
    parts = sent(Outgoing(signatures, KEYS))
    assert b"ssn" not in parts.body
    assert (parts.content_type, parts.content_encoding, parts.headers[FORM]) == (*CONTENT, SEALED_FORM)
    if signatures:
        assert not signatures.fault_of(parts.headers, *CONTENT, parts.body)
        assert parts.headers[SIGNED] == ["tenant", SEALED]
    handed_over = pickle.loads(pickle.dumps(SealedBody.of(parts.headers, parts.body)))  # as the pool does
    args, kwargs, options = handed_over
    assert (args, kwargs) == ([], {"ssn": "123"})
    assert options == {**STEPS, SEALED_BODY: handed_over}


CHANGES: dict[str, Any] = {
    **dict.fromkeys([*OWN, "task", "tenant", "group"], "other"), "x_generation": 2, "x_batch": ["b", "chunk"], "timelimit": [61, 30],
    "expires": "2027-01-01T00:00:00+00:00", SEALED: "chain",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_it_opens_in_no_other_message(name: str) -> None:
    """Whatever differs of that: what is in an altered, or in another message, is not run."""
    parts = sent()
    args, kwargs, options = SealedBody.of({**parts.headers, name: CHANGES[name]}, parts.body)
    assert (args, kwargs) == ([], {})
    assert "its seal does not fit it" in options[UNOPENED]


def test_what_changes_on_the_way_does_not_matter() -> None:
    """A second attempt opens it as well."""
    parts = sent()
    body = SealedBody.of({**parts.headers, "retries": 3, "eta": None, "x_counts": {"other": 2}}, parts.body)
    assert body.opened(KEYS).kwargs == {"ssn": "123"}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({}, ""),
        ({"chain": [1]}, "chain"),
        ({"chord": {"a": 1}, "callbacks": [1]}, "callbacks chord"),
        ({"errbacks": [1]}, "errbacks"),
    ],
)
def test_the_main_process_knows_that_something_follows(steps: dict[str, Any], told: str) -> None:
    """And not what: its sender has signed the names alone."""
    body = json.dumps([[], {}, {**STEPS, **steps}]).encode()
    parts = Outgoing(SIGNATURES, KEYS).finished(Parts(dict(HEADERS), "application/json", "utf-8", body))
    assert sorted(follows(parts.headers)) == told.split()


def test_one_that_is_finished_goes_on_as_it_is() -> None:
    """Such as a copy of a message that waits elsewhere."""
    parts = sent()
    assert Outgoing(SIGNATURES, KEYS).finished(parts) is parts
    unsigned = Parts({name: one for name, one in parts.headers.items() if name != SIGNATURE}, *parts[1:])
    assert Outgoing(SIGNATURES, KEYS).finished(unsigned) is unsigned


def test_without_a_key_nothing_goes_out() -> None:
    """Nor what is no JSON."""
    with pytest.raises(CannotSeal, match=r"mine.Pay: .*CONVENTIONS_PAYLOAD_KEYS"):
        sent(Outgoing(SIGNATURES, None))
    with pytest.raises(CannotSeal, match="only JSON is"):
        Outgoing(SIGNATURES, KEYS).finished(Parts(dict(HEADERS), "application/x-msgpack", "binary", BODY))


def test_a_function_never_runs_without_its_arguments() -> None:
    """Nobody looks there whether a body was opened, so it cannot be taken apart."""
    parts = sent()
    args, kwargs, _ = BodyOfFunction.of(parts.headers, parts.body)
    assert (args, kwargs) == ([], {"ssn": "123"})
    other = BodyOfFunction.of({**parts.headers, "id": "m-2"}, parts.body)
    with pytest.raises(CannotOpen):
        list(pickle.loads(pickle.dumps(other)))  # as the pool does
    assert UNOPENED in other.steps


def test_a_process_without_keys() -> None:
    """It says what it lacks."""
    open_with(None)
    parts = sent()
    _, _, options = SealedBody.of(parts.headers, parts.body)
    assert "CONVENTIONS_PAYLOAD_KEYS" in options[UNOPENED]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b"[[], [], {}]", b"[{}, {}, {}]", b"[[], {}, []]", b"\xff", b"[" * 9000]
)
def test_what_is_sealed_is_no_body(text: bytes) -> None:
    """Whoever has sealed it."""
    with pytest.raises(CannotOpen, match="not the body of a message"):
        SealedBody(b"", KEYS.seal(text, b"")).opened(KEYS)


def test_a_letter_keeps_it_as_it_was() -> None:
    """With other headers it opens once more, for a redrive; also where Redis has the message as it was sent."""
    parts = sent()
    body = SealedBody.of(parts.headers, parts.body)
    kept = sealed_message(body, {"id": "m-1", "x_generation": 3}, {})
    found = sealed_in(json.loads(json.dumps(kept)))
    assert found == body
    raw = {name: one for name, one in sealed_message(body, parts.headers, {}).items() if name != "bound-to"}
    assert sealed_in(raw) == body
    assert sealed_in({**raw, "content-type": "application/json"}) is None
    assert sealed_in(None) is None
