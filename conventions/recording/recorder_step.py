"""A worker begins and ends with its recorder."""

import threading
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown

from conventions.recording.leader_duties import begin_duties, counter_of
from conventions.recording.recorder import Recorder
from conventions.recording.recorder_keeper import STOP_WITHIN, Keeper


class RecorderStep(bootsteps.StartStopStep):
    """Forks the recorder before the worker has threads and connections. If the worker runs in a thread itself, starts a thread."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        """Raises: ConfigurationError: a worker in production has no keys for the audit."""
        super().__init__(worker, **options)
        worker.app.check_audit_keys()  # here, since Celery runs `on_worker_init` in beat, too, which seals nothing
        self._ended = threading.Event()
        self._keeper: Keeper | None = None

    def create(self, worker: Any) -> None:
        """Start the recorder. It ends with the worker, however the worker ends."""
        worker_shutdown.connect(self._stop, sender=worker)
        if threading.current_thread() is threading.main_thread():
            self._keeper = Keeper(worker.app)
            return
        app = worker.app
        recorder = Recorder(
            app.store, lambda: app.database, timings=app.timings, counter=counter_of(app), audit_keys=app.audit_keys
        )
        self._duties = begin_duties(app, recorder, self._ended.is_set)
        self._thread = threading.Thread(target=recorder.run, args=(self._ended.is_set,), name="recorder", daemon=True)
        self._thread.start()

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Watch the recorder, in a thread that starts after the pool has forked its processes."""
        if self._keeper is not None:
            self._keeper.watch()

    def terminate(self, worker: Any) -> None:  # noqa: ARG002  # the same
        """A worker in a thread, as in a test, is terminated and says nothing of it, and its process lives on; so end the recorder."""
        if threading.current_thread() is not threading.main_thread():
            self._stop()

    def _stop(self, **_: Any) -> None:
        self._ended.set()
        if self._keeper is None:
            self._duties.stop()
            self._thread.join(STOP_WITHIN)
            self._duties.finish()
        else:
            self._keeper.stop()
