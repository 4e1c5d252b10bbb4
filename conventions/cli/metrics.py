"""`celery -A <app> metrics`: what the jobs of the last minutes did, by task; with `--port`, all metrics for Prometheus."""

import signal
from typing import Any

import click
from celery.bin.base import CeleryCommand

from conventions.alerts.evaluator import Evaluator
from conventions.app import ConventionsApp
from conventions.cli.base import app_of, emit, one_line_errors, output_options, say
from conventions.core.errors import ConfigurationError
from conventions.core.extras import how_to_install, is_installed
from conventions.metrics.known_series import known_series
from conventions.metrics.rates_and_times import Figures, by_series
from conventions.metrics.read_counts import KEPT_MINUTES, Counts
from conventions.metrics.series import Series

LOCAL = "127.0.0.1"
COLUMNS = (
    "task", "queue", "succeeded", "retried", "dead", "interrupted", "failure_percent", "mean_run_seconds", "p95_run_seconds", "mean_wait_seconds",
    "p95_wait_seconds",
)  # fmt: skip


@click.command(cls=CeleryCommand)
@click.option(
    "--minutes",
    type=click.IntRange(1, KEPT_MINUTES),
    default=60,
    show_default=True,
    help="Of the last so many minutes.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Serve all metrics for Prometheus there, until Ctrl-C; 0: a free port.",
)
@click.option(
    "--address", default=LOCAL, show_default=True, help="With --port: where it listens. Nobody is asked for a login."
)
@output_options
@click.pass_context
@one_line_errors
def metrics(context: click.Context, *, minutes: int, port: int | None, address: str, as_json: bool, limit: int) -> None:
    """Show what the jobs of each task did in the last minutes: outcomes, run times, waits. With --port, serve all metrics.

    A failure is a job that ended as a dead letter; its percentage is of the jobs that ended. A wait is the time in which a job lacked nothing
    but a free worker.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    if port is not None:
        _serve(app, port, address)
        return
    found = by_series(Counts(app.store), minutes, known_series(app))
    rows = [_row(series, figures) for series, figures in found.items()]
    emit(rows[:limit], COLUMNS, as_json=as_json)


def _serve(app: ConventionsApp, port: int, address: str) -> None:
    if not is_installed("prometheus-client"):
        raise ConfigurationError([how_to_install("prometheus-client")])
    from conventions.metrics.prometheus_server import MetricsServer  # noqa: PLC0415  # needs the extra

    try:
        server = MetricsServer(app, port, address)
    except OSError as error:
        raise ConfigurationError(
            [f"metrics cannot be served at {address}:{port}: {error}; choose another --port"]
        ) from error
    signal.signal(signal.SIGTERM, _end)
    evaluator = Evaluator(app)
    evaluator.start()
    say(f"metrics: http://{address}:{server.port}/metrics")
    try:
        server.wait()
    except KeyboardInterrupt:
        server.close()
    finally:
        evaluator.stop()


def _end(*_: Any) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    raise KeyboardInterrupt


def _row(series: Series, figures: Figures) -> dict[str, Any]:
    rate = figures.failure_rate
    return {
        "task": series.task,
        "queue": series.queue,
        **{kind: figures.of(kind) for kind in ("succeeded", "retried", "dead", "interrupted")},
        "failure_percent": None if rate is None else round(100 * rate, 2),
        "retry_percent": None if figures.retry_rate is None else round(100 * figures.retry_rate, 2),
        "mean_run_seconds": _rounded(figures.run.mean),
        "p95_run_seconds": _rounded(figures.run.quantile(0.95)),
        "mean_wait_seconds": _rounded(figures.wait.mean),
        "p95_wait_seconds": _rounded(figures.wait.quantile(0.95)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
