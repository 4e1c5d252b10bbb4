"""Many rows in one go: an optimisation of the relay, which sends one by one whatever is left here.

The messages are the same. Where the broker does not take all of a go, nothing is known of each of them: the relay sends each once more, under
its id. What cannot be made into a message is left alone, too, so that the relay alone says what becomes of it.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from conventions.broker.bulk_publish import BYTES_AT_ONCE
from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.redis_broker import Publication
from conventions.core.deadline import Deadline
from conventions.core.error_text import first_line
from conventions.outbox.entry import Entry, queue_of, read_back, send_entry
from conventions.sending.application import SendingApplication
from conventions.sending.send import checked_send

logger = logging.getLogger(__name__)

FEW = 2  # rows that are worth it


def send_together(app: SendingApplication, entries: Sequence[Entry], until: float) -> frozenset[str]:
    """Send those that can be sent, and begin nothing after `until`, a moment of the monotonic clock.

    Returns the ids of those that the broker has for certain. Raises nothing.
    """
    made, others, sent = list[Publication](), defaultdict[str, list[Entry]](list), set[str]()
    for entry in entries if len(entries) >= FEW else ():
        try:
            publication = _from_template(app, entry)
        except Exception as error:  # noqa: BLE001  # the relay says what it is
            logger.debug("%s of the outbox is sent by itself: %s", entry.id, first_line(error))
        else:
            if publication is None:
                others[queue_of(app.tasks[entry.task], entry)].append(entry)
            else:
                made.append(publication)
    # A queue of RabbitMQ that takes nothing is alone with its messages.
    goes = [partial(_publish, app, go) for go in _goes(made)]
    goes += [partial(_by_celery, app, alike) for alike in others.values() if len(alike) >= FEW]
    for go in goes:
        if time.monotonic() < until:
            try:
                sent.update(go())
            except Exception as error:  # noqa: BLE001  # whatever it is, each of them is tried by itself, and says so
                logger.debug("rows of the outbox are sent one by one: %s", first_line(error))
    return frozenset(sent)


def _publish(app: SendingApplication, go: Sequence[Publication]) -> list[str]:
    with Deadline(app.settings.broker_timeout):
        app.broker.publish(go)
    return [one.tag for one in go]


def _from_template(app: SendingApplication, entry: Entry) -> Publication | None:
    """The message; `None`: Celery must make it. Raises: as `send_entry`; KeyError: there is no such task."""
    task: Any = app.tasks[entry.task]
    options = read_back(entry.options)
    if not app.templates.fit(options):
        return None
    given = options | {"headers": AcceptedHeaders(read_back(entry.headers))}
    accepted = checked_send(task, (), json.loads(entry.arguments), entry.id, given)
    return None if accepted is None else app.templates.publication(task, accepted[0], entry.id, accepted[1], options)


def _goes(made: Sequence[Publication]) -> Iterator[list[Publication]]:
    """Parts that do not delay the other clients of the server."""
    go, size = list[Publication](), 0
    for one in made:
        if go and size + len(one.payload) > BYTES_AT_ONCE:
            yield go
            go, size = [], 0
        go.append(one)
        size += len(one.payload)
    if go:
        yield go


def _by_celery(app: SendingApplication, entries: Sequence[Entry]) -> list[str]:
    """Give them to one batch of kombu, which waits for all of them at its end. Returns the ids of those that it took."""
    collected = list[str]()
    with (
        Deadline(app.settings.broker_timeout) as deadline,
        app.port.producer(None) as producer,
        producer.batch(len(entries) + 1) as batch,
    ):
        with deadline.own_work():
            for entry in entries:
                try:
                    send_entry(app.tasks[entry.task], entry, producer=producer)
                except (TypeError, ValueError) as error:  # nothing of it is in the batch
                    logger.debug("%s of the outbox is sent by itself: %s", entry.id, first_line(error))
                else:
                    collected.append(entry.id)
        batch.flush()
    return collected
