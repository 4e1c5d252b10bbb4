"""Who is told: a webhook, and the services of apprise. Each may fail; whoever sends tries again."""

import functools
import json
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

from conventions.core.address_safety import PRIVATE, beyond
from conventions.core.bounded_call import BoundedCalls, StillWaits
from conventions.core.errors import ConfigurationError
from conventions.core.extras import how_to_install, is_installed
from conventions.core.secrets_in_text import without_secrets
from conventions.core.settings import Settings

WITHIN = 10.0  # seconds for one message, however slowly a receiver answers
_calls = BoundedCalls()
_WITH_TLS = "take the scheme that ends with s, such as jsons:// or mailtos://"
Receiver = Callable[[Mapping[str, Any]], None]


class NotDelivered(Exception):
    """A receiver did not take a message. Its text has no secrets."""


def receivers(settings: Settings) -> dict[str, Receiver]:
    """Those of the settings, by a name that shows no secret.

    Raises:
        ConfigurationError: apprise is needed, and not installed; it does not know an address; or in production, one has no TLS.
    """
    found: dict[str, Receiver] = {}
    if settings.alert_webhook:
        found["webhook"] = functools.partial(post, settings.alert_webhook)
    if settings.alert_urls and not is_installed("apprise"):
        raise ConfigurationError([how_to_install("apprise")])
    for number, address in enumerate(settings.alert_urls, 1):
        found[f"{address.partition(':')[0]} {number}"] = _by_apprise(address, number, settings)
    return found


def _by_apprise(address: str, number: int, settings: Settings) -> Receiver:
    from apprise import Apprise  # noqa: PLC0415  # only where it is installed

    service = Apprise()
    if not service.add(address):
        raise ConfigurationError(
            [f"CONVENTIONS_ALERT_URLS: apprise does not know the address number {number}, which begins {address[:8]}"]
        )
    if settings.environment == "production" and (host := _plain_host(service[0], settings.plaintext_hosts)):
        raise ConfigurationError(
            [
                f"CONVENTIONS_ALERT_URLS: the address number {number}, which begins {address[:8]}, has no TLS to {host}: {_WITH_TLS}; {PRIVATE}"
            ]
        )

    def notify(body: Mapping[str, Any]) -> None:
        try:
            taken = _calls.call(
                f"apprise {address}", lambda: service.notify(title=str(body["title"]), body=str(body["text"])), WITHIN
            )
        except StillWaits as error:
            raise NotDelivered(str(error)) from None
        if not taken:
            raise NotDelivered("apprise could not deliver it")

    return notify


def _plain_host(service: Any, plaintext_hosts: Collection[str]) -> str:
    """The host to which a service of apprise talks without TLS; empty: it does not, or may.

    A service has two schemes, such as `json` and `jsons`, where its server may be anybody's; that of a provider is secure by itself.
    """
    if not (service.protocol and service.secure_protocol):
        return ""
    # The provider of ntfy is `ntfy://topic`, too. The address that apprise makes of it says that it is secure.
    is_secure = service.secure or service.url().startswith(service.secure_protocol)  # one scheme, or a tuple
    is_plain = not is_secure or getattr(service, "secure_mode", "") == "insecure"  # of e-mail
    host = str(getattr(service, "smtp_host", "") or service.host or "")
    return beyond([host], plaintext_hosts) if is_plain else ""


def post(address: str, body: Mapping[str, Any]) -> None:
    """Send JSON by POST. A login in the address is sent as basic authentication.

    Raises:
        NotDelivered: also for a status of 300 and above, and where there is no answer in time.
    """
    try:
        _calls.call(address, lambda: _post(address, body), WITHIN)
    except (OSError, ValueError, HTTPException, StillWaits) as error:  # HTTPError is an OSError
        raise NotDelivered(without_secrets(f"{type(error).__name__}: {error}")) from None


def _post(address: str, body: Mapping[str, Any]) -> None:
    parts, headers = urlsplit(address), {"Content-Type": "application/json", "User-Agent": "celery-conventions"}
    login, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = f"Basic {b64encode(unquote(login).encode()).decode()}"
    request = urllib.request.Request(  # noqa: S310  # the setting allows http and https alone
        urlunsplit(parts._replace(netloc=host)), json.dumps(body).encode(), headers
    )
    try:
        with _opener.open(request, timeout=WITHIN):
            pass
    except HTTPError as refused:
        refused.close()
        raise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is sent elsewhere would be sent as GET, without its body, and look delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the status is the answer."""


_opener = urllib.request.build_opener(_NoRedirect)
