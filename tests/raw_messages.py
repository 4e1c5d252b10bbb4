"""Messages as other programs may leave them in a queue: by kombu with a raw body, or written into Redis by hand."""

import functools
import json
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from tests.support import wait_until
from tests.workers import Installation, Worker

EMPTY = Sizes(0, 0, 0)


def body(args: Any = (), kwargs: Any = None, embed: Any = None) -> bytes:
    """The body of a task's message, as Celery writes it."""
    return json.dumps([args, {} if kwargs is None else kwargs, {} if embed is None else embed]).encode()


def headers(task: str, message_id: str | None = None, **more: Any) -> dict[str, Any]:
    """The least headers of a task's message."""
    return {"task": task, "id": message_id or str(uuid4()), "lang": "py", **more}


def publish(
    app: ConventionsApp,
    queue: str,
    raw: bytes,
    headers: dict[str, Any],
    *,
    content_type: str = "application/json",
    content_encoding: str = "utf-8",
) -> str:
    """Send a body as it is, through kombu. Returns the message's id."""
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish(
            raw,
            exchange="",
            routing_key=queue,
            headers=headers,
            content_type=content_type,
            content_encoding=content_encoding,
            retry=False,
        )
    return str(headers.get("id"))


def envelope(raw: bytes, headers: Any, **more: Any) -> dict[str, Any]:
    """A message as kombu stores it; `more` replaces parts of it."""
    return {
        "body": b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "immediate"},
            "priority": 0,
            "delivery_tag": str(uuid4()),
        },
    } | more


def put(app: ConventionsApp, queue: str, payload: bytes | str | None, tag: bytes | None = None) -> str:
    """Write a message into Redis by hand, with no help of the platform; `None`: without its hash. Returns its tag."""
    tag = tag or str(uuid4()).encode()
    redis = app.store.redis
    if payload is not None:
        values: dict[Any, Any] = {"payload": payload, "queue": queue, "priority": 0, "score": 9e14}
        redis.hset(app.store.key("message").encode() + b":" + tag, mapping=values)
    redis.zadd(app.store.key("queue", queue), {tag: 9e14})
    app.broker.wake([queue])
    return tag.decode(errors="replace")


def left(app: ConventionsApp, queue: str) -> tuple[Sizes, list[bytes]]:
    """What the broker still has: the sizes of a queue, and the key of every message."""
    keys = list(app.store.redis.scan_iter(match=f"{app.store.key('message')}:*"))
    return app.broker.sizes(queue), keys


def clear(app: ConventionsApp, queue: str) -> None:
    """Take everything out of a queue, after a test that left something."""
    keys = [app.store.key(place, queue) for place in ("queue", "delayed", "inflight")]
    app.store.redis.delete(*keys, *left(app, queue)[1])


def check_unharmed(app: ConventionsApp, worker: Worker, queue: str) -> None:
    """The main process lives, the broker is empty, and the recorder has taken everything. Raises: AssertionError."""
    try:
        assert worker.process.poll() is None, "the worker has ended"
        wait_until(lambda: left(app, queue) == (EMPTY, []), 10, "the broker is empty")
    except AssertionError as error:
        found = left(app, queue)
        clear(app, queue)
        raise AssertionError(f"{error}: in the broker: {found}\n{worker.output[-5000:]}") from error
    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    assert app.store.redis.exists(app.store.key("journal", "rejected")) == 0


class Keeper(ExitStack):
    """Keeps a worker running for several tests, which a test that ends it fails alone; and its application here."""

    def __init__(self, installation: Installation, *arguments: str) -> None:
        super().__init__()
        self._installation, self._arguments = installation, arguments
        self._worker: Worker | None = None

    @classmethod
    def at(
        cls,
        folder: Path,
        broker_url: str,
        new_database: Callable[[Path], str],
        *arguments: str,
        message_keys: str | None = None,
    ) -> "Keeper":
        """One for the tasks of `poison_tasks`. Without keys it takes a raw message for one of another program."""
        tasks = ["tests.integration.poison_tasks"]
        installed = Installation(
            folder,
            tasks,
            broker_url=broker_url,
            database_url=new_database(folder),
            unknown_task_wait=0,
            message_keys=message_keys,
        )
        return cls(installed, *arguments)

    @functools.cached_property
    def app(self) -> ConventionsApp:
        """The application, in this process."""
        return self.enter_context(self._installation.application())

    def running(self) -> Worker:
        """The worker, started again when it has ended."""
        if self._worker is None or self._worker.process.poll() is not None:
            self._worker = self.enter_context(self._installation.worker(*self._arguments))
        return self._worker
