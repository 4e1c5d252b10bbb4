"""The recorder beside a worker: a process of its own, which is started again when it dies."""

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from celery import bootsteps
from celery.signals import worker_shutdown

from conventions.recorder import Recorder, record_for_ever

STOP_WITHIN = 5.0  # seconds that the recorder has for the last events
LOOK_EVERY = 0.5  # seconds between two looks at the processes


class RecorderProcess(bootsteps.Step):
    """Forks the recorder while the worker has one thread only; in a worker that is a thread itself, starts a thread."""

    def create(self, worker: Any) -> None:
        """Start it. It ends with the worker, however that ends."""
        self._app = worker.app
        self._pid = 0
        self._ended = threading.Event()
        worker_shutdown.connect(self._stop, sender=worker)
        if threading.current_thread() is not threading.main_thread():
            recorder = Recorder(self._app.store, lambda: self._app.database)
            self._thread = threading.Thread(
                target=recorder.run, args=(self._ended.is_set,), name="recorder", daemon=True
            )
            self._thread.start()
            return
        main = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            _watch_over(self._app, main)

    def _record(self) -> None:
        recorder = Recorder(self._app.store, lambda: self._app.database)
        recorder.run(self._ended.is_set)
        recorder.finish()

    def _stop(self, **_: Any) -> None:
        self._ended.set()
        if not self._pid:
            self._thread.join(STOP_WITHIN)
            return
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_WITHIN
            while time.monotonic() < deadline and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _watch_over(app: Any, main: int) -> NoReturn:
    """Keep a recorder running until the worker's main process is gone or says so. Never returns."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    keeper = os.getpid()
    try:
        while True:
            recorder = os.fork()
            if not recorder:
                record_for_ever(app, keeper)
            while os.waitpid(recorder, os.WNOHANG) == (0, 0):
                if asked.wait(LOOK_EVERY) or os.getppid() != main:
                    os.kill(recorder, signal.SIGTERM)
                    os.waitpid(recorder, 0)
                    os._exit(0)
    finally:
        os._exit(1)
