"""Serves the metrics of an application to Prometheus, from a process of its own."""

import logging
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from prometheus_client import generate_latest, make_wsgi_app, start_http_server
from redis.exceptions import RedisError

from conventions.execution.application import Application
from conventions.metrics.known_series import known_names, known_series
from conventions.metrics.prometheus_metrics import MetricsCollector, registry_of
from conventions.metrics.read_counts import Counts
from conventions.metrics.state_now import LevelReader, fault_in_words
from conventions.storage.redis_store import Store

logger = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Any, Any], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain; charset=utf-8")]


def collector_of(app: Application) -> MetricsCollector:
    """The metrics of an application whose tasks are loaded."""
    return MetricsCollector(Counts(app.store), LevelReader(app, known_names(app)), lambda: known_series(app))


def text_of(app: Application) -> bytes:
    """All metrics, as Prometheus reads them. Raises: RedisError."""
    return generate_latest(registry_of(collector_of(app)))


class ServesWhileItCan:
    """A WSGI application that says 503 while Redis is away, and not a traceback for each scrape. The log has its beginning and its end.

    Args:
        answer: the application that reads Redis.
        store: names the Redis.
    """

    def __init__(self, answer: Answer, store: Store) -> None:
        self._answer, self._store = answer, store
        self._lock, self._away = threading.Lock(), False  # each scrape has a thread of its own

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        try:
            found = self._answer(environ, start_response)
        except RedisError as error:  # before `start_response` was called: all is read first
            fault = fault_in_words(error, self._store)
            if self._changed(away=True):
                logger.warning("metrics are not served now, each scrape gets a 503: %s", fault)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            start_response(f"{status.value} {status.phrase}", PLAIN)
            return [f"# {fault}\n".encode()]
        if self._changed(away=False):
            logger.warning("metrics are served again")
        return found

    def _changed(self, *, away: bool) -> bool:
        with self._lock:
            before, self._away = self._away, away
        return before != away


class MetricsServer:
    """Answers each path, since Prometheus asks for `/metrics` and people for `/`. While Redis is away, the answer is 503.

    Args:
        app: the application; its tasks are loaded.
        port: 0: a free one.
        address: where it listens.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, app: Application, port: int, address: str) -> None:
        registry = registry_of(collector_of(app))
        self._server, self._thread = start_http_server(port, address, registry)
        self._server.set_app(ServesWhileItCan(make_wsgi_app(registry), app.store))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def wait(self) -> None:
        """Serve until the process ends."""
        self._thread.join()

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
