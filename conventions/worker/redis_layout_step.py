"""A worker says that it lives and which layout it knows, and ends when Redis has a newer one."""

import logging
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.worker import state
from redis.exceptions import RedisError

from conventions.core.background_rounds import Rounds
from conventions.core.errors import NewerLayout
from conventions.execution.application import Application
from conventions.storage.layout_version import SAY_EVERY, Member

logger = logging.getLogger(__name__)

STATUS = 2  # of a worker that may not touch what is in Redis


class LayoutStep(bootsteps.StartStopStep):
    """A thread of the worker's main process; it speaks for the pool and for the recorder, which end with the worker."""

    requires = ("celery.worker.components:Hub",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._app: Application = worker.app
        self._member = Member("worker")
        fault = "others are not told that this worker lives"
        self._rounds = Rounds("layout", self._say, SAY_EVERY, fault=fault, logger=logger)
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Say so for the first time. Raises: SystemExit, when Redis has a newer layout."""
        try:
            with suppress(RedisError):  # the consumer waits for the server
                self._member.say(self._app.servers)
        except NewerLayout as error:
            logger.critical("%s", error)
            raise SystemExit(STATUS) from None
        self._rounds.start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002  # the same
        """Say that it ends."""
        self._rounds.stop()
        with suppress(RedisError):
            self._member.leave(self._app.servers)

    terminate = stop

    def _say(self) -> None:
        try:
            self._member.say(self._app.servers)
        except NewerLayout as error:
            end_worker(error)
            self._rounds.stop()
        except RedisError as error:
            logger.debug("not told that this worker lives: %s", error)


def end_worker(error: NewerLayout) -> None:
    """End this worker as a signal would: it takes no message, returns what has not started, and lets run what runs."""
    if state.should_stop is None:
        logger.critical("this worker ends: %s", error)
        state.should_stop = STATUS
