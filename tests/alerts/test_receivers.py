"""In production no alert goes to a service without TLS (R21)."""

import pytest

from conventions.alerts.receivers import receivers
from conventions.core.errors import ConfigurationError
from conventions.core.named_keys import new_key
from conventions.core.settings import Settings

KEYS = new_key("k")


def settings(alert_urls: str, plaintext_hosts: str = "", environment: str = "production") -> Settings:
    """Those of a production that is safe otherwise."""
    return Settings.load(
        environment=environment,
        plaintext_hosts=plaintext_hosts,
        broker_url="redis://:k3-long-enough@127.0.0.1",
        database_url="sqlite://",
        message_keys=KEYS,
        alert_urls=alert_urls,
    )


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("json://hooks.example.com/x", "hooks.example.com"),
        ("mailto://u:p@example.com", "example.com"),
        ("mailto://u:p@example.com?smtp=mail.example.com", "mail.example.com"),
        ("mailtos://u:p@example.com?mode=insecure", "example.com"),
        ("ntfy://ntfy.example.com/topic", "ntfy.example.com"),
    ],
)
def test_an_address_without_tls(address: str, host: str) -> None:
    """Is refused before anything is sent; the text names place and host, and no login."""
    safe = "jsons://hooks.example.com"
    with pytest.raises(ConfigurationError, match=f"address number 2, .* has no TLS to {host}: ") as raised:
        receivers(settings(f"{safe},{address}"))
    assert "u:p" not in str(raised.value)
    assert receivers(settings(f"{safe},{address}", plaintext_hosts=host))
    assert receivers(settings(f"{safe},{address}", environment="development"))


@pytest.mark.parametrize(
    "address",
    [
        "jsons://hooks.example.com",
        "json://127.0.0.1:8080",
        "mailtos://u:p@example.com",
        "mailto://u:p@example.com?mode=starttls",
        "mailto://u:p@gmail.com",
        "discord://1234567890/abcdefghij",
        "tgram://123456789:abcdefg_hijklmnop/lead2gold",
        "ntfy://topic",
    ],
)
def test_a_safe_address(address: str) -> None:
    """Also those of providers, which have no scheme without TLS."""
    assert len(receivers(settings(address))) == 1
