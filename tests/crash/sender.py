"""Sends the jobs of a chaos run."""

import threading
from collections.abc import Sequence
from queue import Queue

from redis.exceptions import RedisError

from conventions.core.errors import BrokerUnavailable
from tests.crash.plan import Sending


class Sender:
    """Sends from a thread of its own, as a web process would; tries again what the server did not take."""

    def __init__(self, sendings: Sequence[Sending]) -> None:
        self.unavailable = 0
        self._left = list(sendings)
        self._bursts: Queue[Sequence[Sending]] = Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def burst(self, count: int) -> None:
        """Send the next ones."""
        self._bursts.put(self._left[:count])
        del self._left[:count]

    def finish(self) -> None:
        """Send what is left, and wait for the end."""
        self.burst(len(self._left))
        self._bursts.put(())
        self._thread.join(120)
        assert not self._thread.is_alive(), "the sender does not come to an end"
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            while burst := self._bursts.get():
                for one in burst:
                    self._send(one)
        except BaseException as error:  # noqa: BLE001  # raised in the test's thread
            self._error = error

    def _send(self, one: Sending) -> None:
        arguments = {"number": one.number, "seconds": one.seconds}
        while True:
            try:
                one.task.apply_async((), arguments, task_id=one.id, countdown=one.countdown)
            except (BrokerUnavailable, RedisError):
                self.unavailable += 1
            else:
                return
