"""`PayloadKeys`: what is sealed opens with its key, and with what it was bound to, and in no other way (R21)."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.core.errors import CannotOpen
from conventions.core.named_keys import FORM, new_key
from conventions.sealing import payload_keys
from conventions.sealing.aes_gcm import NONCE, SALT, TAG, key_of
from conventions.sealing.payload_keys import PayloadKeys

OLD, NEW = new_key("old"), new_key("new")
KEYS = PayloadKeys.parse(f"{NEW},{OLD}")


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_what_is_sealed_opens(text: bytes, bound_to: bytes) -> None:
    """And says nothing meanwhile: it is as long as the text, with the key's name, salt, nonce and tag."""
    sealed = KEYS.seal(text, bound_to)
    assert KEYS.open(sealed, bound_to) == text
    assert len(sealed) == len(text) + 2 + len("new") + SALT + NONCE + TAG
    assert key_of(sealed) == "new"


@given(st.binary(max_size=40), st.binary(max_size=9), st.data())
def test_nothing_altered_opens(text: bytes, bound_to: bytes, data: st.DataObject) -> None:
    """Neither with a bit turned anywhere, nor cut, nor bound to something else."""
    sealed = KEYS.seal(text, bound_to)
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    turned = bytearray(sealed)
    turned[at // 8] ^= 1 << at % 8
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    for one, to in ((bytes(turned), bound_to), (cut, bound_to), (sealed + b"0", bound_to), (sealed, bound_to + b"0")):
        with pytest.raises(CannotOpen):
            KEYS.open(one, to)


def test_two_texts_are_never_sealed_alike() -> None:
    """Equal texts look different, so nobody sees that they are equal."""
    assert len({KEYS.seal(b"same", b"") for _ in range(100)}) == 100


def test_keys_change_one_after_the_other() -> None:
    """A new key opens first, and seals later; the old one is taken away last."""
    first, second, third = (PayloadKeys.parse(one) for one in (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}"))
    alone = PayloadKeys.parse(NEW)
    for sealing, opening in ((first, second), (second, first), (second, third), (third, second), (third, alone)):
        assert opening.open(sealing.seal(b"text", b""), b"") == b"text"
    with pytest.raises(CannotOpen, match="sealed with the key 'old', which is not here"):
        alone.open(second.seal(b"text", b""), b"")


def test_another_key_of_the_same_name() -> None:
    """It says so, and not that somebody has altered something."""
    with pytest.raises(CannotOpen, match="another key has the name"):
        PayloadKeys.parse(new_key("new")).open(KEYS.seal(b"text", b""), b"")


@pytest.mark.parametrize("text", [b"", b"{}", b"\x01", b"\x02\x03new", b"\x01\xff", b"\x01\x00" + bytes(60)])
def test_what_is_not_sealed(text: bytes) -> None:
    """It has no key, and does not open."""
    assert not key_of(text)
    with pytest.raises(CannotOpen, match="not sealed in a form that is known here"):
        KEYS.open(text, b"")


def test_a_busy_process_takes_another_key_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has sealed too many texts with one; all of them open."""
    monkeypatch.setattr(payload_keys, "MOST", 3)
    keys = PayloadKeys.parse(NEW)
    sealed = [keys.seal(b"text", b"") for _ in range(7)]
    assert len({one[: 2 + len("new") + SALT] for one in sealed}) == 3
    assert {KEYS.open(one, b"") for one in sealed} == {b"text"}


def test_threads_share_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one of them takes another key, and the old ones are forgotten."""
    monkeypatch.setattr(payload_keys, "MOST", 2)
    monkeypatch.setattr(payload_keys, "REMEMBERED", 2)
    keys, found = PayloadKeys.parse(NEW), list[bytes]()

    def work() -> None:
        found.extend(keys.open(keys.seal(b"text", b""), b"") for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [b"text"] * 1200


@pytest.mark.parametrize("make", [lambda: "short:YWJj", lambda: "a:b:c", lambda: f"{NEW},{NEW}", lambda: ""])
def test_wrong_settings(make: Callable[[], str]) -> None:
    """They are refused, and no key is repeated."""
    with pytest.raises(ValueError, match="write") as raised:
        PayloadKeys.parse(make())
    assert FORM in str(raised.value)
    assert NEW.partition(":")[2] not in str(raised.value)
