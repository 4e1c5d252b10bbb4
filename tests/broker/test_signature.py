"""A signature covers what never changes of a message, on both brokers, and however the message was made."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from amqp.serialization import dumps, loads  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    COUNTS,
    EDITED_BY,
    ENQUEUED_AT,
    FINGERPRINT,
    GENERATION,
    KEY,
    OURS,
    PARKED,
    PLANNED_AT,
    READY_AT,
    SCHEDULE,
    SIGNATURE,
    SIGNED,
)
from conventions.broker.signature import (
    ALTERED,
    KNOWN,
    LIKE_A_CALLERS,
    Signatures,
    SignedText,
    with_body,
    without_unsigned,
)
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.library_internals.celery import REQUEST_FIELDS

KEYS = f"{new_key('new')},{new_key('old')}"
SIGNATURES = Signatures(MessageKeys.parse(KEYS))
CONTENT = ("application/json", "utf-8")
BODY = b'[[], {"amount": 100}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
HEADERS: dict[str, Any] = {
    "lang": "py", "task": "mine.Pay", "id": "m-1", "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None, "retries": 0,
    "timelimit": [90, 60.5], "root_id": "m-1", "parent_id": None, "argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@h", "ignore_result": True,
    ACTOR: "u-1", KEY: "k" * 40, FINGERPRINT: "f" * 40, ENQUEUED_AT: "2026-12-01T00:00:00+00:00", BATCH: ["b-1", "chunk", 3, 100],
}  # fmt: skip
SIGNED_ONES = {
    "task": "mine.Refund", "id": "m-2", "expires": "2026-12-01T00:00:00+00:00", "group": "g", "group_index": 3, "timelimit": [90, None], ACTOR: "ceo",
    KEY: "other", FINGERPRINT: "g" * 40, ENQUEUED_AT: "2026-11-01T00:00:00+00:00", PLANNED_AT: "2026-12-02T00:00:00+00:00", SCHEDULE: "daily",
    GENERATION: 2, BATCH: ["b-2", "chunk", 3, 100],
}  # fmt: skip
CHANGING = {
    "retries": 2,
    "eta": "2026-12-01T00:00:00+00:00",
    COUNTS: {"OSError": 1},
    PARKED: 3,
    READY_AT: "2026-12-01T00:00:00+00:00",
    "kwargsrepr": "…",
}


def signed(**more: Any) -> dict[str, Any]:
    """A signed message."""
    return SIGNATURES.signed({**HEADERS, **more}, *CONTENT, BODY)


def fault(headers: Mapping[str, Any], body: bytes = BODY, content: tuple[str, str] = CONTENT) -> str:
    """What is wrong with it."""
    return SIGNATURES.fault_of(headers, *content, body)


@pytest.mark.parametrize("name", SIGNED_ONES)
def test_what_never_changes(name: str) -> None:
    """Another value, or none, is found."""
    headers = signed()
    assert fault(headers) == ""
    assert fault({**headers, name: SIGNED_ONES[name]}) == "its signature does not fit it: it was altered"
    with_it = signed(**{name: SIGNED_ONES[name]})
    assert fault(with_it) == ""
    assert fault({one: value for one, value in with_it.items() if one != name}) != ""


def test_body_and_content() -> None:
    """The arguments, the steps after them, and how they are read."""
    headers = signed()
    assert fault(headers, BODY.replace(b"100", b"999"))
    assert fault(headers, BODY.replace(b'"chain": null', b'"chain": []'))
    assert fault(headers, content=("application/x-python-serialize", "binary"))
    assert fault({**headers, GENERATION: 0}) == ""
    for other in (False, 0.0, "0", ""):
        assert fault({**headers, GENERATION: other}) == ("" if other == "" else ALTERED)


@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_on_the_way(name: str) -> None:
    """It is not signed."""
    assert fault({**signed(), name: CHANGING[name]}) == ""


def test_each_known_header_is_signed_or_changes() -> None:
    """Who adds a header decides it, and writes it down here."""
    shown = {"argsrepr", "kwargsrepr", "lang", "origin", "shadow", "root_id", "parent_id", "stamps", "stamped_headers"}
    of_itself = {
        "compression",
        "ignore_result",
        "replaced_task_nesting",
        "x_form",
        "x_copy",
        "x_token",
        SIGNATURE,
        SIGNED,
        "x_conventions_together",
    }
    traces = {"traceparent", "tracestate", "baggage"}
    assert {*SIGNED_ONES, *CHANGING, "x_unknown", "x_unknown_since", *shown, *of_itself, *traces} == KNOWN
    assert set(OURS) - LIKE_A_CALLERS <= KNOWN
    assert not LIKE_A_CALLERS & KNOWN
    assert {"id", "task"} & set(REQUEST_FIELDS) <= KNOWN


def test_who_has_changed_a_letter() -> None:
    """It is signed as a header of a caller is, since an earlier release takes it for one; and it is gone where somebody else has added it."""
    headers = signed(**{EDITED_BY: "bob"})
    assert headers[SIGNED] == [EDITED_BY]
    assert fault(headers) == ""
    assert fault({**headers, EDITED_BY: "ann"}) == ALTERED
    assert fault({name: one for name, one in headers.items() if name != EDITED_BY}) == ALTERED
    assert fault({name: one for name, one in headers.items() if name not in {EDITED_BY, SIGNED}}) == ALTERED
    assert without_unsigned({**signed(), EDITED_BY: "bob"}) == signed()


def test_headers_of_a_caller() -> None:
    """They are signed with their names; one that came on the way is dropped, and one that is gone is missed."""
    headers = signed(tenant="t-1", flags={"b": [1, None], "a": 2.5})
    assert headers[SIGNED] == ["flags", "tenant"]
    assert fault(headers) == ""
    assert fault({**headers, "tenant": "t-2"})
    assert fault({name: one for name, one in headers.items() if name != "tenant"})
    assert fault({**headers, SIGNED: ["flags"]})
    assert fault({**headers, SIGNED: "flags"})
    assert fault({**headers, SIGNED: ["flags", "tenant", "tenant"]})
    assert fault({**headers, SIGNED: {"flags": {"b": [1, None], "a": 2.5}, "tenant": "t-1"}, "tenant": "t-2"})
    added = {**headers, "admin": True, "x-death": [1]}
    assert fault(added) == ""
    assert without_unsigned(added, ["x-death"]) == {**headers, "x-death": [1]}
    assert without_unsigned({**signed(), "admin": True}) == signed()


def test_keys() -> None:
    """One signs, each verifies; a message without a signature, or of another key, is none of ours."""
    old = Signatures(MessageKeys.parse(KEYS.split(",")[1])).signed(HEADERS, *CONTENT, BODY)
    assert old[SIGNATURE].startswith("old.")
    assert fault(old) == ""
    assert (
        fault({**old, SIGNATURE: old[SIGNATURE].replace("old.", "new.")})
        == "its signature does not fit it: it was altered"
    )
    other = Signatures(MessageKeys.parse(new_key("other"))).signed(HEADERS, *CONTENT, BODY)
    assert fault(other) == "it is signed with a key that this worker does not have"
    assert not SIGNATURES.knows_key_of(other)
    nothing: tuple[Any, ...] = (None, "", 7, [], {})
    for none in nothing:
        assert fault({**HEADERS, SIGNATURE: none}) == "it is not signed"
        assert SIGNATURES.knows_key_of({SIGNATURE: none})
    for odd in ("new", "new.", "new.é", "new.\ud800", f"new.{'A' * 23}"):
        assert fault({**signed(), SIGNATURE: odd}) == "its signature does not fit it: it was altered"


def test_brokers_keep_it() -> None:
    """JSON, as in Redis, and the types of AMQP, as in RabbitMQ."""
    headers = signed(tenant="t-1", flags={"b": [1, None], "a": 2.5}, at=True)
    assert fault(json.loads(json.dumps(headers))) == ""
    assert fault(loads("F", dumps("F", [headers]), 0)[0][0]) == ""


TEXTS = st.none() | st.text(max_size=6) | st.sampled_from(["1:", "0:", "2:ab", ""])
MESSAGES = st.fixed_dictionaries(dict.fromkeys(("task", "id", KEY, FINGERPRINT, ACTOR, "expires", "group"), TEXTS))


def test_no_part_moves_into_the_body() -> None:
    """Headers of a caller end where the body begins."""
    headers = signed(tenant="t-1")
    without = {name: one for name, one in headers.items() if name not in ("tenant", SIGNED)}
    whole = with_body(SignedText(headers, *CONTENT).of_headers(headers), BODY)
    before = with_body(SignedText(without, *CONTENT).of_headers(without), b"").removesuffix(
        b"0:0:"
    )  # no such headers, and no body
    assert whole.startswith(before)
    assert fault(without, whole.removeprefix(before)) == ALTERED


@given(MESSAGES, MESSAGES, st.binary(max_size=6), st.binary(max_size=6))
def test_no_two_messages_have_one_signature(one: Any, other: Any, body: bytes, other_body: bytes) -> None:
    """Wherever a part ends: no text can be moved from one into the next. An empty text is none."""
    first = SIGNATURES.signed(one, *CONTENT, body)
    assert fault(first, body) == ""

    def said(headers: Mapping[str, Any]) -> list[str]:
        return [headers[name] or "" for name in one]

    is_same = said(one) == said(other) and body == other_body
    assert (fault({**other, SIGNATURE: first[SIGNATURE]}, other_body) == "") is is_same


@pytest.mark.parametrize(("sent", "other"), [(1, True), (True, 1), (1, 1.0), (0, False)])
def test_equal_values_are_not_one(sent: Any, other: Any) -> None:
    """Though the parts that messages have in common are kept, and Python takes 1 for True."""
    assert fault(signed(group_index=sent)) == ""
    assert fault({**signed(group_index=sent), "group_index": other}) == ALTERED


def test_a_value_that_cannot_be_a_key() -> None:
    """Another program's header may hold a list where a text is usual; it is signed as any other value."""
    headers = signed(expires=["a"], group=[1])
    assert fault(headers) == ""
    assert fault({**headers, "group": [2]}) == fault({**headers, "expires": ["b"]}) == ALTERED


def test_releases_sign_alike() -> None:
    """A worker of the release before verifies what this one signs, so these two codes stay."""
    signatures = Signatures(MessageKeys({"k": bytes(range(32))}))
    plain = signatures.signed(HEADERS, *CONTENT, BODY)
    assert plain[SIGNATURE] == "k.hlqxAdYnveXivVZGxjhJwEJj"
    full = signatures.signed({**HEADERS, **SIGNED_ONES, "x-mine": "ü", "x_other": [1, None]}, *CONTENT, BODY)
    assert full[SIGNATURE] == "k.uTXbuypYeprBkhwv+XpyXkJC"
