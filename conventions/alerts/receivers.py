"""Who is told: a webhook, and the services of apprise. Each may fail; whoever sends tries again."""

import json
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from conventions.core.errors import ConfigurationError
from conventions.core.extras import how_to_install, is_installed
from conventions.core.secrets_in_text import without_secrets
from conventions.core.settings import Settings

WITHIN = 10.0  # seconds for one message
Receiver = Callable[[Mapping[str, Any]], None]


class NotDelivered(Exception):
    """A receiver did not take a message. Its text has no secrets."""


def receivers(settings: Settings) -> dict[str, Receiver]:
    """Those of the settings, by a name that shows no secret.

    Raises:
        ConfigurationError: apprise is needed, and not installed; or it does not know an address.
    """
    found: dict[str, Receiver] = {}
    if settings.alert_webhook:
        address = settings.alert_webhook
        found["webhook"] = lambda body: post(address, body)
    if settings.alert_urls and not is_installed("apprise"):
        raise ConfigurationError([how_to_install("apprise")])
    for number, address in enumerate(settings.alert_urls, 1):
        found[f"{address.partition(':')[0]} {number}"] = _by_apprise(address, number)
    return found


def _by_apprise(address: str, number: int) -> Receiver:
    from apprise import Apprise  # noqa: PLC0415  # only where it is installed

    service = Apprise()
    if not service.add(address):
        raise ConfigurationError(
            [f"CONVENTIONS_ALERT_URLS: apprise does not know the address number {number}, which begins {address[:8]}"]
        )

    def notify(body: Mapping[str, Any]) -> None:
        if not service.notify(title=str(body["title"]), body=str(body["text"])):
            raise NotDelivered("apprise could not deliver it")

    return notify


def post(address: str, body: Mapping[str, Any]) -> None:
    """Send JSON by POST. Raises: NotDelivered, also for a status of 300 and above."""
    request = urllib.request.Request(  # noqa: S310  # the setting allows http and https alone
        address, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "celery-conventions"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WITHIN):  # noqa: S310  # the same
            pass
    except (OSError, ValueError) as error:  # HTTPError is an OSError
        raise NotDelivered(without_secrets(f"{type(error).__name__}: {error}")) from None
