"""Publish a message: retry until `broker_timeout` is over. The error says whether the broker may have the message."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable, NewerLayout
from conventions.core.redis_address import shown
from conventions.core.redis_answers import advice_on
from conventions.execution.application import Application, broker_outages, may_pass
from conventions.execution.current_job import sends_follow_ups, sends_them_again
from conventions.storage.redis_connections import telling

RETRY_EVERY = 0.2  # seconds between two tries to reach the broker


def publish(
    send: Callable[..., Any], app: Application, message_id: str, *, with_result: bool = False, producer: Any = None
) -> Any:
    """Call `send` until the broker accepts the message, for `broker_timeout` seconds.

    Args:
        send: publishes the message, under the same id each time. If the broker is not Redis, it gets options of kombu's
            `publish`.
        app: the application.
        message_id: the message's id.
        with_result: whether the caller wants the result, so that Redis must be reachable, too.
        producer: the caller's producer, if it has one.

    Raises:
        BrokerUnavailable: names the message, and the address without its password.
    """
    reason: Exception | None = None
    with Deadline(app.settings.broker_timeout) as deadline:
        while True:
            try:
                if with_result:
                    _require_results(app)
                return app.port.send(send, producer, deadline)
            except NewerLayout as error:
                if sends_follow_ups():  # the message comes again, and a worker of the later release sends the step
                    raise Reject(error, requeue=True) from error
                raise
            except broker_outages(app, RuntimeError) as error:
                if not may_pass(app, error):
                    raise
                reason = telling(error, reason)
                # A process that tried the steps of one job again and again would run nothing else.
                if deadline.left < RETRY_EVERY or sends_them_again():
                    away = unavailable(app, reason, [message_id], maybe_sent=deadline.may_have_left)
                    if sends_follow_ups():  # its job is settled: the message comes again, and then the step is sent
                        raise Reject(away, requeue=True) from reason
                    raise away from reason
                time.sleep(RETRY_EVERY)


def publish_written(
    app: Application,
    message_id: str,
    queue: str | None,
    body: bytes,
    *,
    content: tuple[str, str],
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    priority: int | None,
) -> None:
    """Send a message whose body was written before: by a job that is dead now, or by another program.

    Args:
        app: the application.
        message_id: its id.
        queue: the name of one of its queues.
        body: the bytes, in their content encoding.
        content: its content type and its content encoding.
        headers: of the message.
        properties: of the message before; those by which others wait for it are kept.
        priority: a `Priority`, or `None`.

    Raises:
        BrokerUnavailable: as `publish`.
        PayloadError, TypeError, ValueError: no broker can carry it.
    """
    kept = {name: properties[name] for name in ("correlation_id", "reply_to") if properties.get(name)}
    with app.producer_or_acquire() as producer:
        publish(
            lambda producer=producer, **how: producer.publish(
                body,
                exchange="",
                routing_key=queue,
                content_type=content[0],
                content_encoding=content[1],
                headers=headers,
                priority=priority,
                retry=False,
                **kept,
                **how,
            ),
            app,
            message_id,
            producer=producer,
        )


def unavailable(app: Application, error: BaseException, ids: Sequence[str], *, maybe_sent: bool) -> BrokerUnavailable:
    """The error for messages that the broker did not accept in time.

    Args:
        app: the application.
        error: of the last try.
        ids: the messages.
        maybe_sent: whether the broker may have them.
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


def _require_results(app: Application) -> None:
    # Celery subscribes to the result before it publishes, and tries for 20 s.
    try:
        app.store.redis.ping()
    except RedisError as error:
        raise OperationalError(
            f"Redis at {shown(app.store.url)}, which keeps results, does not answer: {error}"
        ) from error
