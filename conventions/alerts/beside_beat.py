"""The evaluator begins beside each beat: beat runs outside the workers, and any number of beats may run."""

from collections.abc import Callable
from typing import Any

from celery import signals

from conventions.core.errors import ConfigurationError
from conventions.execution.application import Application


def start_beside_beat(is_ours: Callable[[Any], bool]) -> None:
    """Begin the evaluator when a beat of an application of ours starts. `is_ours`: whether an application is."""

    def begin(sender: Any = None, **_: Any) -> None:
        app: Any = getattr(sender, "app", None)
        if is_ours(app):
            _begin(app)

    for signal in (signals.beat_init, signals.beat_embedded_init):
        signal.connect(begin, weak=False, dispatch_uid="conventions alerts")


def _begin(app: Application) -> None:
    from conventions.alerts.evaluator import Evaluator  # noqa: PLC0415  # loads SQLAlchemy, which a sender does not need

    try:
        Evaluator(app).start()
    except ConfigurationError as error:
        error.show()
        raise SystemExit(error.exit_code) from None
