"""How a worker stops: it finishes or returns every job within the grace period, and at once when told again."""

import logging
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import worker_process_shutdown, worker_shutdown, worker_shutting_down
from celery.worker import state

from conventions.core.repeated_signal import SAME_PRESS
from conventions.execution.process_ends import has_ended
from conventions.library_internals.billiard import destination_of, open_jobs, pids_of
from conventions.library_internals.celery_worker import has_terminated, is_warm_handler, say
from conventions.worker.cut_off import cut_off

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.02  # seconds between two looks for processes that are idle
READ_WITHIN = 0.3  # seconds that the main thread of a worker that stops has to end its read by itself
EXIT_STATUS: dict[int, int] = {signal.SIGTERM: 0, signal.SIGINT: 1}  # as Celery's
SIGNALS = (*EXIT_STATUS, signal.SIGQUIT)


class Stopping(bootsteps.StartStopStep):
    """The grace period (`shutdown_grace`), and signals that wake the loop.

    The first SIGTERM or SIGINT lets running jobs finish; after the grace period, or at the next signal, or at SIGQUIT,
    they are killed and their messages returned, with nothing counted. The same signal within `SAME_PRESS` seconds is no next one.
    """

    requires = ("celery.worker.components:Hub",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._worker, self._pid = worker, os.getpid()
        # A handler may be interrupted by another one's `put`; any other lock would hold the main thread up for ever.
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._listens = self._is_told = False
        self._first: dict[str, tuple[int, float]] = {}  # the first signal, and when it came
        self._waker: tuple[socket.socket, socket.socket] | None = None
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:
        """Install the handlers, where this is the main thread of a process."""
        worker.app.in_flight.start(worker.app.amqp.queues.consume_from)
        if threading.current_thread() is not threading.main_thread():
            return
        self._listens = True
        threading.Thread(target=self._end_in_time, name="grace", daemon=True).start()
        worker_shutting_down.connect(self._on_shutting_down)
        worker_shutdown.connect(self._on_ended, sender=worker)
        # Celery's handlers for these two take a lock, which a second signal within them would wait for for ever.
        warm = (number for number in EXIT_STATUS if is_warm_handler(signal.getsignal(number)))
        for number in (*warm, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        if worker.use_eventloop:
            self._waker = socket.socketpair()
            for end in self._waker:
                end.setblocking(False)
            # A signal does not end a poll: PEP 475 makes it go on.
            signal.set_wakeup_fd(self._waker[1].fileno(), warn_on_full_buffer=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Let a signal wake the loop."""
        if self._waker is not None:
            hub.add_reader(self._waker[0], self._drain)

    def _drain(self) -> None:
        assert self._waker is not None  # noqa: S101  # registered only then
        with suppress(BlockingIOError):
            self._waker[0].recv(4096)

    def close(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """The worker stops: where no signal said so, remote control did, or an error that Celery cannot handle."""
        if self._listens and not self._is_told:
            self._first.setdefault("signal", (0, -math.inf))  # the next one is the second
            self._on_shutting_down()

    def _on_ended(self, **_: Any) -> None:
        # The next signal is for the next worker, where a program runs several.
        worker_shutting_down.disconnect(self._on_shutting_down)

    def _on_signal(self, number: int, _frame: Any) -> None:
        """Stop, or hurry. Another signal may interrupt this at any point."""
        if os.getpid() != self._pid:  # a process of the pool that has its own handlers soon
            return
        came = (number, time.monotonic())
        first = self._first.setdefault("signal", came)  # one step, which nothing interrupts
        if number == signal.SIGQUIT:
            self._hurry()
        elif first is came:
            self._stop(number)
        elif number != first[0] or came[1] - first[1] >= SAME_PRESS:
            self._hurry()

    def _stop(self, number: int) -> None:
        """What Celery's handlers do, but for those that they install for a second signal."""
        status = EXIT_STATUS[number]
        try:
            say("worker: Warm shutdown (MainProcess)", sys.__stdout__)
            worker_shutting_down.send(
                sender=self._worker.hostname, sig=signal.Signals(number).name, how="Warm", exitcode=status
            )
        finally:
            state.should_stop = status

    def _on_shutting_down(self, **_: Any) -> None:
        self._is_told = True
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._told.put(None)

    def _hurry(self) -> None:
        self._is_told = True
        if state.should_stop is None:  # SIGQUIT came first, or Celery has still to say so
            state.should_stop = 0
        self._told.put(None)
        self._told.put(None)  # also where nothing came before

    def _end_in_time(self) -> None:
        """Wait out the grace period, once told to stop."""
        self._told.get()
        in_flight = self._worker.app.in_flight
        self._end_reads()  # else this worker would take again what it gives back
        in_flight.give_back_unstarted()  # where the job runs in the main thread, nobody else would before it ends
        with suppress(queue.Empty):
            self._told.get(timeout=self._worker.app.settings.shutdown_grace)
        if has_terminated(self._worker) and threading.main_thread().is_alive():
            return  # the worker has ended by itself, and the program goes on
        cut_off(self._worker, state.should_stop or 0)

    def _end_reads(self) -> None:
        channel: Any = getattr(getattr(self._worker.consumer, "task_consumer", None), "channel", None)
        if hasattr(channel, "end_reads"):
            channel.end_reads(READ_WITHIN)


def stops() -> bool:
    """Whether the worker was told to stop: what has not started goes back then."""
    return state.should_stop is not None or state.should_terminate is not None


def end_processes(pool: Any) -> None:
    """End the processes of a pool as soon as none has a job, also none that the main process does not know of as begun.

    Each would say so and sleep for a second, which nobody waits for here. Where somebody wants to hear of their end
    (`worker_process_shutdown`), they are asked to end.
    """
    if _has_job(pool):
        threading.Thread(target=_end_idle, args=(pool,), name="idle processes", daemon=True).start()
    else:
        _end_idle(pool)


def _has_job(pool: Any) -> bool:
    """Whether a process has one. One that died with its job ends no job: nobody reads of its death any more."""
    return any(not has_ended(destination_of(job)) for job in open_jobs(pool).values())


def _end_idle(pool: Any) -> None:
    while _has_job(pool):
        time.sleep(LOOK_EVERY)
    number = signal.SIGTERM if worker_process_shutdown.receivers else signal.SIGKILL
    for pid in pids_of(pool):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
