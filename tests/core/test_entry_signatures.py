"""An entry of the journal and its signature: whatever is changed of it, it is not believed (R20, R22)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.core.entry_signatures import KEY_NOT_HERE, EntrySignatures
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key

NOW = datetime(2026, 12, 1, tzinfo=UTC)
OLD, NEW, OTHER = new_key("old"), new_key("new"), new_key("other")
JSON = st.dictionaries(st.text(), st.none() | st.integers() | st.text(), min_size=1)


def signatures(*keys: str, **options: Any) -> EntrySignatures:
    """Of these keys."""
    return EntrySignatures(MessageKeys.parse(",".join(keys)), now=lambda: NOW, **options)


def written(value: Any) -> bytes:
    """As the journal writes it."""
    return json.dumps(value).encode()


@given(JSON)
def test_what_is_signed_is_believed(entry: dict[str, Any]) -> None:
    """It is the same JSON with one field more, which older releases ignore; also after a change of keys."""
    signed = signatures(OLD).signed(written(entry), "event")
    assert json.loads(signed) == entry | {"signature": json.loads(signed)["signature"]}
    assert signatures(NEW, OLD).fault_of(signed, "event") == ""


@given(JSON, st.data())
def test_what_was_altered_is_not(entry: dict[str, Any], data: st.DataObject) -> None:
    """One byte changed, taken away or added, anywhere."""
    signs = signatures(OLD)
    signed = signs.signed(written(entry), "event")
    at = data.draw(st.integers(0, len(signed) - 1))
    new = data.draw(st.binary(max_size=2).filter(lambda new: new != signed[at : at + 1]))
    altered = signed[:at] + new + signed[at + 1 :]
    if altered == signed:  # one byte more of the same, moved
        return
    assert signs.fault_of(altered, "event")


def test_it_is_of_one_use() -> None:
    """What an attempt said is no action of a person."""
    signed = signatures(OLD).signed(b'{"a": 1}', "event")
    assert signatures(OLD).fault_of(signed, "deed") == "its signature does not fit it: it was altered"


@pytest.mark.parametrize(
    "entry", [b'{"a": 1}', b"", b"{", b'{"a": 1,"signature":""}', b',"signature":"old.x"}', b"\xff"]
)
def test_what_is_not_signed(entry: bytes) -> None:
    """It is believed until a moment, where one is set: releases before this one do not sign."""
    assert signatures(OLD).fault_of(entry, "event") != ""
    if b"signature" not in entry:
        early, late = (signatures(OLD, trusted_until=NOW + timedelta(seconds=one)) for one in (1, 0))
        assert (early.fault_of(entry, "event"), late.fault_of(entry, "event")) == ("", "it is not signed")


def test_a_key_that_is_not_here() -> None:
    """It is told apart, since it may come: the recorder looks at such an entry again."""
    signed = signatures(OTHER).signed(b'{"a": 1}', "event")
    assert signatures(NEW, OLD).fault_of(signed, "event") == KEY_NOT_HERE
    assert (EntrySignatures.is_signed(signed), EntrySignatures.key_of(signed)) == (True, "other")


def test_the_longest_signature_is_found() -> None:
    """Of a name of 16 characters; and none in what only has the word in it."""
    signed = signatures(new_key("a" * 16)).signed(b'{"a": 1}', "event")
    assert (EntrySignatures.is_signed(signed), EntrySignatures.key_of(signed)) == (True, "a" * 16)
    plain = b'{"a": ",\\"signature\\":\\"old.x"}'
    assert (EntrySignatures.is_signed(plain), EntrySignatures.key_of(plain)) == (False, "")
