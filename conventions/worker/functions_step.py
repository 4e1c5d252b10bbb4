"""A worker says at its start which of its tasks are functions that keep Celery's meaning: the conventions do not hold for them."""

import logging
from typing import Any

from celery import bootsteps

from conventions.tasks.functions import functions_of

logger = logging.getLogger(__name__)

LISTED = 20  # names in the line


class FunctionsStep(bootsteps.StartStopStep):
    """A step of Celery's worker. It says nothing where there is no function."""

    requires = ("celery.worker.components:Hub",)

    def start(self, worker: Any) -> None:
        """Say it."""
        names = functions_of(worker.app)
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            logger.warning(
                "%d of its tasks are functions, which keep Celery's meaning: they are acknowledged before they run, tried again as their own "
                'options say, and leave no dead letter: %s%s; @app.job makes a job of one, create_app(functions="conventions") of all in its packages',
                len(names), ", ".join(names[:LISTED]), more,
            )  # fmt: skip
