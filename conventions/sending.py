"""How a message is made and handed to the broker: options, headers, delays, and what happens when it cannot be reached."""

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import update_wrapper
from typing import Any, Concatenate

from celery.canvas import maybe_signature
from celery.exceptions import Reject
from celery.utils.functional import maybe_list
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.errors import BrokerUnavailable, DeclarationError, PayloadError
from conventions.idempotency import digest
from conventions.job import (
    ACTOR,
    ENQUEUED_AT,
    FINGERPRINT,
    KEY,
    PLANNED_AT,
    idempotency_key,
    inherited_actor,
    step_follows,
)
from conventions.letters import refuse_step
from conventions.priority import Priority
from conventions.redis_address import shown

OPTIONS = frozenset(
    [
        "actor",
        "add_to_parent",
        "argsrepr",
        "chain",
        "chord",
        "compression",
        "connection",
        "countdown",
        "delivery_mode",
        "eta",
        "exchange",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "idempotency_key",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "mandatory",
        "origin",
        "parent_id",
        "planned_at",
        "priority",
        "producer",
        "publisher",
        "queue",
        "replaced_task_nesting",
        "reply_to",
        "result_cls",
        "retries",
        "retry",
        "retry_policy",
        "root_id",
        "route_name",
        "router",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "task_id",
        "task_type",
        "time_limit",
    ]
)

SHORT = 100  # characters
RETRY_EVERY = 0.2  # seconds between two tries to reach the broker


class sending_method[**P, R]:  # noqa: N801  # used like a decorator, and named like one
    """A method that on the class works on the registered task, and on a task as usual."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        self._method = method
        update_wrapper(self, method)  # type: ignore[arg-type]  # for __doc__ and __wrapped__

    def __get__(self, task: Any, cls: Any) -> Callable[P, R]:
        if task is None and cls.registered is None:
            raise DeclarationError(f"{cls.__qualname__} is abstract: it defines no run, so it cannot be sent")
        return self._method.__get__(cls.registered if task is None else task)  # type: ignore[no-any-return]


def payload_of(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any], message_id: str
) -> dict[str, Any] | None:
    """The payload of a send; `None` for a step whose predecessor has ended, which is a dead letter then.

    Raises:
        TypeError, PayloadError: as `checked`.
    """
    try:
        # What goes on, as a retry does, was accepted before, perhaps under a higher limit.
        check = task.arguments.bind if KEY in given else task.checked
        return dict(check(args, kwargs))
    except (TypeError, PayloadError) as error:
        if not step_follows():
            raise
        refuse_step(task, message_id, dict(kwargs) | {"args": list(args)}, error)
        return None


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
    for name, value in (("actor", actor), ("idempotency_key", key)):
        if value is not None and not value:
            raise ValueError(f"{task.name}: {name} is empty; leave it out, or say which")
    if KEY in given:
        return dict(given)
    planned = _planned(planned_at)
    headers = {
        ACTOR: actor or inherited_actor(),
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


def shown_arguments(payload: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    """How logs and Flower show a small payload; Celery's own way takes longer than the rest of a send."""
    small = all(value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < SHORT)
                for value in payload.values())  # fmt: skip
    if not small or "argsrepr" in options or "kwargsrepr" in options:
        return {}
    return {"argsrepr": "()", "kwargsrepr": repr(dict(payload))}


def freeze_callbacks(options: dict[str, Any]) -> None:
    """Give each callback its id now: a job that ends twice, as after a crash, sends the same messages twice."""
    for name in ("link", "link_error"):
        if options.get(name):
            options[name] = [_frozen(one) for one in maybe_list(options[name])]


def _frozen(given: Any) -> Any:
    callback = maybe_signature(given).clone()
    if "task_id" not in callback.options:
        callback.freeze()
    return callback


def check_options(task: Any, options: Mapping[str, Any], max_delay: timedelta) -> None:
    """Refuse options of a send that cannot mean what they say.

    Raises:
        TypeError: a bare integer as priority, or `retry_policy`, which is declared on the class.
        ValueError: a delay beyond `max_delay`; a time limit below the soft one, which would never end the job.
    """
    if not options:
        return
    _check_priority(task.name, options)
    if KEY not in (options.get("headers") or {}):  # what waits again was accepted before
        _check_delay(task.name, options, max_delay)
    _check_names(task.name, options)
    if "retry_policy" in options:
        raise TypeError(f"{task.name}: retry_policy is declared on the task class, not passed to a send")
    if options.get("serializer") not in (None, "json"):
        raise TypeError(f"{task.name}: only JSON is accepted; leave serializer={options['serializer']!r} out")
    soft = options.get("soft_time_limit") or task.soft_time_limit
    hard = options.get("time_limit") or task.time_limit
    if soft and hard and hard < soft:
        raise ValueError(
            f"{task.name}: time_limit ({hard:g} s) is below soft_time_limit ({soft:g} s); pass both, the soft one lower"
        )


def _check_names(task: str, options: Mapping[str, Any]) -> None:
    if "stamped_headers" in options:  # stamps are options of any name
        return
    for name in options:
        if name not in OPTIONS and (close := difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.7)):
            raise TypeError(f"{task}: there is no option {name}; write {close[0]}=...")


def _check_priority(task: str, options: Mapping[str, Any]) -> None:
    priority = options.get("priority")
    # The next step of a chain and the next attempt of a message come from Celery, where a Priority is its number.
    continues = {"root_id", "reply_to"} & options.keys() or KEY in (options.get("headers") or {})
    if priority is not None and not continues and not isinstance(priority, Priority):
        names = ", ".join(f"Priority.{member.name}" for member in Priority)
        raise TypeError(
            f"{task}: priority {priority!r} means different things on different brokers; write one of {names}"
        )


def _check_delay(task: str, options: Mapping[str, Any], max_delay: timedelta) -> None:
    delay = options.get("countdown")
    eta = options.get("eta")
    if isinstance(eta, str):
        eta = datetime.fromisoformat(eta)
    if isinstance(eta, datetime):
        aware = eta if eta.tzinfo else eta.replace(tzinfo=UTC)
        delay = (aware - datetime.now(UTC)).total_seconds()
    if delay is not None and delay > max_delay.total_seconds():
        raise ValueError(
            f"{task}: a delay of {delay:.0f} s is beyond max_delay ({max_delay.total_seconds():.0f} s); "
            "use a schedule, or raise CONVENTIONS_MAX_DELAY"
        )


def publish(send: Callable[[], Any], app: Any, *, with_result: bool) -> Any:
    """Call `send` until the broker takes the message, for `broker_timeout` seconds.

    Args:
        send: publishes the message under the same id each time.
        app: the application.
        with_result: whether the caller wants the result, so that Redis must be there, too.

    Raises:
        BrokerUnavailable: names the address, without its password.
    """
    timeout = app.settings.broker_timeout
    deadline = time.monotonic() + timeout
    if with_result:
        _require_results(app)
    while True:
        try:
            return send()
        except (OperationalError, ConnectionError, *app.broker_errors) as error:
            if time.monotonic() + RETRY_EVERY > deadline:
                if step_follows():  # its job is settled: the message comes again, and this step is sent then
                    raise Reject(error, requeue=True) from error
                address = shown(app.broker_address)
                raise BrokerUnavailable(
                    f"the broker at {address} did not accept the message within {timeout:g} s ({error}); nothing was sent"
                ) from error
            time.sleep(RETRY_EVERY)


def _require_results(app: Any) -> None:
    # Celery subscribes to the result before it publishes, and tries for 20 s.
    try:
        app.store.redis.ping()
    except RedisError as error:
        address = shown(app.store.url)
        raise BrokerUnavailable(
            f"Redis at {address}, which keeps results, does not answer ({error}); nothing was sent"
        ) from error
