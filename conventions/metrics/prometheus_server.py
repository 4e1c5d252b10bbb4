"""Serves the metrics of an application to Prometheus, from a process of its own."""

from prometheus_client import generate_latest, start_http_server

from conventions.execution.application import Application
from conventions.metrics.counts import Counts
from conventions.metrics.exposition import MetricsCollector, registry_of
from conventions.metrics.known_series import known_names, known_series
from conventions.metrics.levels import LevelReader


def collector_of(app: Application) -> MetricsCollector:
    """The metrics of an application whose tasks are loaded."""
    return MetricsCollector(Counts(app.store), LevelReader(app, known_names(app)), lambda: known_series(app))


def text_of(app: Application) -> bytes:
    """All metrics, as Prometheus reads them. Raises: RedisError."""
    return generate_latest(registry_of(collector_of(app)))


class MetricsServer:
    """Answers each path, since Prometheus asks for `/metrics` and people for `/`.

    Args:
        app: the application; its tasks are loaded.
        port: 0: a free one.
        address: where it listens.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, app: Application, port: int, address: str) -> None:
        self._server, self._thread = start_http_server(port, address, registry_of(collector_of(app)))

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
