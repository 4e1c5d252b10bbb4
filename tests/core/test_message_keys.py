"""The keys that messages are signed with: how the setting reads, and what is refused."""

import base64
import hashlib
import hmac

import pytest

from conventions.core.errors import ConfigurationError
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import FORM, new_key
from conventions.core.settings import Settings

KEY = bytes(range(32))
TEXT = base64.b64encode(KEY).decode()


def test_the_first_one_signs() -> None:
    """By HMAC-SHA256, of which 18 bytes are kept; each verifies."""
    keys = MessageKeys.parse(f"b:{TEXT}, a:{base64.urlsafe_b64encode(KEY[::-1]).decode()}")
    assert (keys.signs_with, list(keys)) == ("b", ["b", "a"])
    right = base64.b64encode(hmac.digest(KEY, b"data", hashlib.sha256)[:18]).decode()
    assert keys.mac(b"data") == keys.mac(b"data", "b") == right
    assert keys.mac(b"data", "a") != right
    assert keys.mac(b"data") == right  # nothing of an earlier one is left


def test_a_new_one() -> None:
    """Each is another one, and can be read."""
    first, second = new_key("2026-12"), new_key("2026-12")
    assert first != second
    assert list(MessageKeys.parse(f"{first},{second.replace('2026', '2027')}")) == ["2026-12", "2027-12"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the 1. key has no name"),
        (TEXT, "the 1. key has no name"),
        (f"a:{TEXT},", "the 2. key has no name"),
        (f"a b:{TEXT}", "the 1. key has no name"),
        (f"a:{TEXT},a:{TEXT}", "two keys are named a"),
        ("a:hunter2-hunter2!", "the key a is no base64"),
        (f"a:{base64.b64encode(KEY[:31]).decode()}", "the key a has 31 bytes, and not 32 or more"),
        (f"a:{base64.b64encode(b'x' * 40).decode()}", "the key a is not random"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    """In one line, which says what to write and never repeats a key."""
    with pytest.raises(ValueError, match=says) as refused:
        MessageKeys.parse(text)
    assert FORM in str(refused.value)
    assert not any(part and part in str(refused.value).replace(FORM, "") for part in (TEXT, "hunter2", TEXT[:10]))


def test_the_setting() -> None:
    """It is needed in production, and no text shows it."""
    with pytest.raises(ConfigurationError, match="CONVENTIONS_MESSAGE_KEYS: must be set in production"):
        Settings.load(environment="production", broker_url="redis://h", database_url="sqlite://")
    with pytest.raises(ConfigurationError, match="CONVENTIONS_MESSAGE_KEYS: the key a is no base64"):
        Settings.load(message_keys="a:!")
    settings = Settings.load(message_keys=f"a:{TEXT}", accept_unsigned="legacy, other")
    assert settings.accept_unsigned == ("legacy", "other")
    assert TEXT not in repr(settings)


def test_how_long_unsigned_messages_may_be_trusted() -> None:
    """A moment with a zone, not far away."""
    assert Settings.load(trust_unsigned_until="2026-01-01T00:00+09:00").trust_unsigned_until is not None
    with pytest.raises(ConfigurationError, match="CONVENTIONS_TRUST_UNSIGNED_UNTIL: it is more than 31 days away"):
        Settings.load(trust_unsigned_until="2999-01-01T00:00+09:00")
    with pytest.raises(ConfigurationError, match="CONVENTIONS_TRUST_UNSIGNED_UNTIL"):
        Settings.load(trust_unsigned_until="2026-01-01T00:00")
