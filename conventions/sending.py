"""How a message is made and handed to the broker: options, headers, delays, and what happens when it cannot be reached."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from conventions.actor import current_actor
from conventions.errors import BrokerUnavailable, PayloadError
from conventions.idempotency import digest
from conventions.job import ACTOR, ENQUEUED_AT, FINGERPRINT, KEY, PLANNED_AT, idempotency_key
from conventions.priority import Priority

RETRY_EVERY = 0.2  # seconds between two tries to reach the broker


def headers_for(
    task: Any,
    payload: Mapping[str, Any],
    message_id: str,
    given: Mapping[str, Any],
    *,
    actor: str | None,
    key: str | None,
    planned_at: datetime | str | None,
) -> dict[str, Any]:
    """The headers of a message; those that it has already, as a retry does, stay."""
    if KEY in given:
        return dict(given)
    planned = _planned(planned_at)
    headers = {
        ACTOR: actor or current_actor(),
        ENQUEUED_AT: datetime.now(UTC).isoformat(),
        KEY: key or idempotency_key(task, payload, message_id, planned),
        FINGERPRINT: digest(payload),
    }
    return headers | ({PLANNED_AT: planned} if planned else {}) | dict(given)


def _planned(value: datetime | str | None) -> str | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if moment.tzinfo is None:
        raise ValueError("planned_at has no time zone; pass an aware datetime")
    return moment.astimezone(UTC).isoformat()


def check_options(task: str, options: Mapping[str, Any], max_delay: timedelta) -> None:
    """Refuse options that cannot mean what they say.

    Raises:
        TypeError: a bare integer as priority, or `retry_policy`, which is declared on the class.
        ValueError: a delay beyond `max_delay`.
    """
    priority = options.get("priority")
    # The next step of a chain and the next attempt of a message come from Celery, where a Priority is its number.
    continues = "root_id" in options or KEY in (options.get("headers") or {})
    if priority is not None and not continues and not isinstance(priority, Priority):
        names = ", ".join(f"Priority.{member.name}" for member in Priority)
        raise TypeError(f"{task}: priority {priority!r} means different things on different brokers; write one of {names}")
    if "retry_policy" in options:
        raise TypeError(f"{task}: retry_policy is declared on the task class, not passed to a send")
    delay = options.get("countdown")
    eta = options.get("eta")
    if isinstance(eta, datetime):
        aware = eta if eta.tzinfo else eta.replace(tzinfo=UTC)
        delay = (aware - datetime.now(UTC)).total_seconds()
    if delay is not None and delay > max_delay.total_seconds():
        raise ValueError(
            f"{task}: a delay of {delay:.0f} s is beyond max_delay ({max_delay.total_seconds():.0f} s); "
            "use a schedule, or raise CONVENTIONS_MAX_DELAY"
        )


def publish(send: Callable[[], Any], app: Any) -> Any:
    """Call `send` until the broker takes the message, for `broker_timeout` seconds.

    Raises:
        BrokerUnavailable: names the address, without its password.
    """
    timeout = app.settings.broker_timeout
    deadline = time.monotonic() + timeout
    while True:
        try:
            return send()
        except (OperationalError, ConnectionError, *app.broker_errors) as error:
            if time.monotonic() + RETRY_EVERY > deadline:
                address = maybe_sanitize_url(app.conf.broker_url)
                raise BrokerUnavailable(
                    f"the broker at {address} did not accept the message within {timeout:g} s ({error}); nothing was sent"
                ) from error
            time.sleep(RETRY_EVERY)


def refuse_unencodable(task: str, error: Exception) -> PayloadError:
    """The error for a value that kombu could not encode, as in a link's arguments."""
    return PayloadError(f"{task}: the message cannot be written as JSON ({error})")
