"""`Templates`: single sends without the work that Celery repeats for each message of a kind.

Celery makes the first message of each kind, and a `MessageTemplate` makes the others: the same on the wire, except for
ids and times. Celery makes every message if somebody could see a difference: a receiver of the signals of a send, a
replaced `Task.apply_async`, a kept result, another router, options of the single message, or a send within a running
job, which becomes the parent of its messages.
"""

import os
import threading
from collections.abc import Mapping
from typing import Any

from celery import signals, uuid

from conventions.broker.bulk_publish import PART, PublishBatch
from conventions.broker.redis_broker import Publication
from conventions.broker.routing import routes_alike
from conventions.execution.application import Application
from conventions.execution.declared_task import DeclaredTask
from conventions.library_internals.celery import changed_settings, current_worker_task, sends_are_celerys
from conventions.library_internals.kombu import publish_batch_of
from conventions.sending.by_celery import by_celery
from conventions.sending.message_template import MessageTemplate
from conventions.sending.shown_arguments import shown_text

KINDS = frozenset(["priority", "queue"])  # options that distinguish kinds of messages

_BEFORE, _AFTER, _SENT = signals.before_task_publish, signals.after_task_publish, signals.task_sent
MOST = 256  # kinds with a template in memory


class _Configuration:
    """The parts of Celery's configuration that a send needs. Seeing that nothing has changed is faster than reading it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._read: Mapping[str, Any] | None = None  # the settings at the last reading
        self._looks = True
        self._routes: Any = ()

    @property
    def looks_at_each(self) -> bool:
        """Whether each message needs its own look: by a router, for an event, or because it runs at once."""
        conf = self._app.conf
        changes = changed_settings(conf)
        if changes != self._read:
            self._looks = bool(conf.task_always_eager or conf.task_send_sent_event)
            self._routes = conf.task_routes
            self._read = dict(changes)
        return self._looks or not routes_alike(self._routes)


class Templates(threading.local):
    """The templates of one thread of an application. A message names the thread that receives its answer."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._configuration = _Configuration(app)
        self._made: dict[tuple[Any, ...], MessageTemplate | None] = {}

    def fit(self, options: Mapping[str, Any]) -> bool:
        """Whether a template may make a message with these options."""
        return (
            (not options or (options.keys() <= KINDS and isinstance(options.get("queue"), str | None)))
            and not (_BEFORE.receivers or _AFTER.receivers or _SENT.receivers)
            and current_worker_task() is None
            and sends_are_celerys()
            and self._app.port.can.templates
            and not self._configuration.looks_at_each
        )

    def send(
        self,
        task: DeclaredTask,
        payload: dict[str, Any],
        task_id: str,
        headers: dict[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Send one checked message with its headers. Returns and raises what `apply_async` does."""
        publication = self.publication(task, payload, task_id, headers, options)
        if publication is None:
            shown = shown_text(task, payload, headers)
            more = {"argsrepr": "()", "kwargsrepr": shown, "headers": headers, "retry": False}
            return by_celery(task, payload, task_id, **more, **options)
        self._app.broker.publish([publication])
        return self._app.ignored_result(task_id, backend=task.backend)

    def publication(
        self,
        task: DeclaredTask,
        payload: dict[str, Any],
        task_id: str,
        headers: dict[str, Any],
        options: Mapping[str, Any],
    ) -> Publication | None:
        """One checked message in the form for the broker; `None`: Celery must make it. Raises: as `apply_async`."""
        own = (task.ignore_result, task.expires, task.soft_time_limit, task.time_limit, task.priority)
        kind = (os.getpid(), task.name, options.get("priority"), options.get("queue"), *own, *headers)
        if len(self._made) >= MOST:  # for example when each tenant has a queue
            self._made.clear()
        if kind not in self._made:
            self._made[kind] = self._made_by_celery(task, payload, headers, options)
        template = self._made[kind]
        return (
            None
            if template is None
            else template.message(task_id, payload, shown_text(task, payload, headers), headers)
        )

    def _made_by_celery(
        self, task: DeclaredTask, payload: dict[str, Any], headers: dict[str, Any], options: Mapping[str, Any]
    ) -> MessageTemplate | None:
        """A template, or `None` if Celery's message cannot be repeated. Sends nothing."""
        app = self._app
        if not task.ignore_result or task.expires is not None:
            return None
        with app.producer_or_acquire(None) as producer, producer.batch(PART) as batch:
            more = {
                "argsrepr": "()",
                "kwargsrepr": shown_text(task, payload, headers),
                "retry": False,
                "add_to_parent": False,
            }
            # Under a random id: a chosen one may occur elsewhere in the message, for example as the task's name.
            by_celery(task, payload, uuid(), headers=headers, producer=producer, **more, **options)
            collected: PublishBatch = publish_batch_of(batch)
            last = collected.withdraw()
        if len(last) != 1:
            return None
        try:
            return MessageTemplate(collected.last, last[0], payload, tuple(headers), app.outgoing)
        except ValueError:
            return None
