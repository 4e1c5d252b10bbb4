"""How a message is made and handed to the broker, and what happens when it cannot be reached."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any, Concatenate

import redis
from celery.canvas import maybe_signature
from celery.exceptions import Reject
from celery.utils.functional import maybe_list
from celery.utils.saferepr import saferepr
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.broker.caller_headers import were_accepted
from conventions.broker.headers import ACTOR, BATCH, ENQUEUED_AT, FINGERPRINT, KEY, PLANNED_AT
from conventions.core.bounds import fault_of_name
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable, DeclarationError, NewerLayout, PayloadError
from conventions.core.redis_address import shown
from conventions.core.redis_answers import advice_on, refusal_of
from conventions.declare.payload import digest_of_json
from conventions.execution.attempt import idempotency_key, inherited_actor, step_follows
from conventions.sending.callbacks import list_callbacks
from conventions.sending.options import check_options
from conventions.sending.unsendable_step import refuse_step
from conventions.storage.redis_connections import LEAST, telling

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


def checked_send(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    message_id: str,
    options: dict[str, Any],
    **how: Any,
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The payload and the headers of a send; `None` for a step whose predecessor has ended, which is a dead letter then.

    Args:
        task: what is sent.
        args: positional arguments of `run`.
        kwargs: those by name.
        message_id: the message's id.
        options: of the send; its callbacks get their ids here.
        how: `actor`, `key` and `planned_at`, as `headers_for` takes them.

    Raises:
        TypeError, ValueError, PayloadError: as `apply_async`.
    """
    try:
        list_callbacks(options)
        check_options(task, options, task._application().settings.max_delay)  # noqa: SLF001  # the same layer
        freeze_callbacks(task, options)
        given = options.get("headers") or {}
        payload, written = payload_of(task, args, kwargs, given)
        return payload, headers_for(task, payload, written, message_id, given, **how)
    except (TypeError, ValueError, PayloadError) as error:
        if not step_follows():
            raise
        arguments = dict(kwargs) if isinstance(kwargs, Mapping) else {"kwargs": kwargs}
        refuse_step(task, message_id, arguments | {"args": list(args)}, error)
        return None


def payload_of(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """The payload of a send and its canonical JSON. Raises: TypeError, PayloadError, as `checked`."""
    refuse_no_arguments(task.name, args, kwargs)
    # What goes on, as a retry does, was accepted before, perhaps under a higher limit.
    check = task.arguments.written if were_accepted(given) else task.written
    checked: tuple[dict[str, Any], bytes] = check(args, kwargs)
    return checked


def refuse_no_arguments(task: str, args: Any, kwargs: Any) -> None:
    """Raises: TypeError, where these are no arguments at all."""
    for given, kind in ((args, Sequence), (kwargs, Mapping)):
        if not isinstance(given, kind) or isinstance(given, (str, bytes)):
            raise TypeError(
                f"{task}: args is a list and kwargs a mapping of run's arguments, not {type(given).__name__}"
            )


def headers_for(
    task: Any,
    payload: Mapping[str, Any],
    written: bytes,
    message_id: str,
    given: Mapping[str, Any],
    *,
    actor: str | None = None,
    key: str | None = None,
    planned_at: datetime | str | None = None,
) -> dict[str, Any]:
    """The headers of a message; those that it has already, as a retry does, stay.

    Args:
        task: what is sent.
        payload: its arguments.
        written: the same, as canonical JSON.
        message_id: the message's id.
        given: headers that the caller wants.
        actor: who causes it.
        key: instead of the key made of the declared arguments.
        planned_at: the slot of a schedule, aware.
    """
    if were_accepted(given):
        return dict(given)
    check_text(task, "task_id", message_id)
    common = common_headers(task, given, actor=actor, planned_at=planned_at)
    return headers_of_own(task, payload, written, message_id, key=key, planned=common.get(PLANNED_AT)) | common


def common_headers(
    task: Any, given: Mapping[str, Any], *, actor: str | None, planned_at: datetime | str | None
) -> dict[str, Any]:
    """The headers that are the same for all messages of one call. Raises: TypeError, ValueError."""
    check_text(task, "actor", actor)
    planned = _planned(planned_at)
    headers = {ACTOR: actor or inherited_actor(), ENQUEUED_AT: datetime.now(UTC).isoformat()}
    return headers | ({PLANNED_AT: planned} if planned else {}) | dict(given)


def headers_of_own(
    task: Any,
    payload: Mapping[str, Any],
    written: bytes,
    message_id: str,
    *,
    key: str | None = None,
    planned: str | None = None,
) -> dict[str, Any]:
    """The headers that come from a message's arguments and id. Raises: TypeError, ValueError."""
    check_text(task, "idempotency_key", key)
    headers: dict[str, Any] = {
        KEY: key or idempotency_key(task, payload, message_id, planned),
        FINGERPRINT: digest_of_json(written),
    }
    if member := task.member_of(payload, message_id):
        headers[BATCH] = list(member)
    return headers


def check_text(task: Any, name: str, value: Any) -> None:
    """Refuse what no worker would take for a text; `None` is that nothing is said. Raises: TypeError, ValueError."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{task.name}: {name} is text, not {type(value).__name__}; write {name}=str(...)")
    if not value:
        raise ValueError(f"{task.name}: {name} is empty; leave it out")
    if fault := fault_of_name(value):
        raise ValueError(f"{task.name}: {name} {fault}")


def _planned(value: datetime | str | None) -> str | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise TypeError(f"planned_at is a moment with a time zone, such as datetime.now(UTC), not {value!r}")
    if moment.tzinfo is None:
        raise ValueError("planned_at has no time zone; pass an aware datetime")
    return moment.astimezone(UTC).isoformat()


def shown_arguments(task: Any, payload: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    """The options that say how logs and Flower show a payload."""
    if "argsrepr" in options or "kwargsrepr" in options:
        return {}
    return {"argsrepr": "()", "kwargsrepr": shown_text(task, payload)}


def shown_text(task: Any, payload: Mapping[str, Any]) -> str:
    """A payload as text; Celery's own way takes longer than the rest of a send, so small ones take a shorter one."""
    if _is_small(payload):
        return repr(dict(payload))
    if own := task.shown(payload):
        return str(own)
    text: str = saferepr(payload, task.app.amqp.kwargsrepr_maxsize, maxlevels=task.app.conf.task_repr_maxlevels)
    return text


def _is_small(payload: Mapping[str, Any]) -> bool:
    return all(
        value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < SHORT)
        for value in payload.values()
    )


def freeze_callbacks(task: Any, options: dict[str, Any]) -> None:
    """Give each callback its id now: a job that ends twice, as after a crash, sends the same messages twice.

    Raises:
        TypeError: one is no signature.
    """
    for name in ("link", "link_error"):
        if options.get(name):
            options[name] = [_frozen(task, name, one) for one in maybe_list(options[name])]


def _frozen(task: Any, name: str, given: Any) -> Any:
    if not isinstance(given, Mapping):  # as signatures are, and what JSON makes of them
        raise TypeError(f"{task.name}: {name} is a signature, such as Other.s(...), or a list of them, not {given!r}")
    callback = maybe_signature(given).clone()
    if "task_id" not in callback.options:
        callback.freeze()
    return callback


def publish(
    send: Callable[..., Any], app: Any, message_id: str, *, with_result: bool = False, producer: Any = None
) -> Any:
    """Call `send` until the broker takes the message, for `broker_timeout` seconds.

    Args:
        send: publishes the message under the same id each time; where the broker is no Redis, it is given options of kombu's
            `publish`.
        app: the application.
        message_id: the message's id.
        with_result: whether the caller wants the result, so that Redis must be there, too.
        producer: what the caller sends by, if he has one.

    Raises:
        BrokerUnavailable: names the message, and the address without its password.
    """
    reason: Exception | None = None
    with Deadline(app.settings.broker_timeout) as deadline:
        while True:
            try:
                if with_result:
                    _require_results(app)
                return send() if app.broker_is_redis else _send_elsewhere(send, app, producer, deadline)
            except NewerLayout as error:
                if step_follows():  # as below: a worker of the later release sends it
                    raise Reject(error, requeue=True) from error
                raise
            except (OperationalError, ConnectionError, RedisError, RuntimeError, *app.broker_errors) as error:
                if not _may_pass(error):
                    raise
                reason = telling(error, reason)
                if deadline.left < RETRY_EVERY:
                    if step_follows():  # its job is settled: the message comes again, and this step is sent then
                        raise Reject(reason, requeue=True) from reason
                    raise unavailable(app, reason, [message_id], maybe_sent=deadline.may_have_left) from reason
                time.sleep(RETRY_EVERY)


def _may_pass(error: BaseException) -> bool:
    """Whether the same may be taken later; an answer that says otherwise does not change."""
    if isinstance(error, RuntimeError):  # Celery's, of a result that nobody can subscribe to
        return isinstance(error.__cause__, RedisError)
    away = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse)  # the last: no Redis is there
    wrong = isinstance(error, RedisError) and not isinstance(error, away)
    return not wrong or bool(refusal_of(error))


def unavailable(app: Any, error: BaseException, ids: Sequence[str], *, maybe_sent: bool) -> BrokerUnavailable:
    """The error of messages that the broker did not take in time.

    Args:
        app: the application.
        error: of the last try.
        ids: the messages.
        maybe_sent: whether they may be there.
    """
    what = f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages"
    why = f"the broker at {shown(app.broker_address)} did not take {what} within {app.settings.broker_timeout:g} s: {error}"
    advice = advice_on(error)
    if advice and advice not in why:
        why += f"; {advice}"
    if not maybe_sent:
        return BrokerUnavailable(f"not sent: {why}", ids=ids)
    again = f"send it again with task_id={ids[0]!r}" if len(ids) == 1 else "send each again under its id, see `ids`"
    text = f"may have been sent: {why}. It may be there all the same: {again}, which changes nothing where it is"
    return BrokerUnavailable(text, maybe_sent=True, ids=ids)


def _send_elsewhere(send: Callable[..., Any], app: Any, given: Any, deadline: Deadline) -> Any:
    """Send to a broker that is no Redis, and wait until it says that it has the message, no longer than the deadline.

    Raises:
        OperationalError, OSError: it does not answer, or says that it does not take it.
    """
    with app.producer_or_acquire(given) as producer:
        connection = producer.connection
        connection.connect_timeout = max(deadline.left, LEAST)
        may_have_left = deadline.may_have_left
        try:
            producer.channel  # noqa: B018  # connects: until then nothing of the message has left
            deadline.may_have_left = True
            sent = send(producer=producer, timeout=deadline.left, confirm_timeout=deadline.left)
        except Exception as error:
            if any(type(one).__name__ == "MessageNacked" for one in (error, error.__cause__)):
                deadline.may_have_left = may_have_left
                raise OperationalError("it refuses the message: its queue is full") from error
            if isinstance(error, (OSError, OperationalError, *app.broker_errors)):
                connection.collect()  # to take leave of a broker that does not answer would take for ever
                producer.revive(connection)
            raise
        return sent


def _require_results(app: Any) -> None:
    # Celery subscribes to the result before it publishes, and tries for 20 s.
    try:
        app.store.redis.ping()
    except RedisError as error:
        raise OperationalError(
            f"Redis at {shown(app.store.url)}, which keeps results, does not answer: {error}"
        ) from error
