"""What the recorder that leads does beside recording: it counts events, moves log lines of attempts, looks for lost messages, writes starts without an outcome, compares a restored Redis with SQL, seals rows of the audit, carries out redrives, and sends the outbox."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from conventions.attempt_log.live_logs import LiveLogs
from conventions.dead_letters.redrive_sender import Redriver
from conventions.execution.purge_queues import known_queues
from conventions.metrics.counting_duty import Counting
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.queue_length_history import Depths
from conventions.outbox.relay import Relay
from conventions.recording.audit_sealer import AuditSealer
from conventions.recording.interrupted_starts import InterruptedStarts
from conventions.recording.log_mover import LogMover
from conventions.recording.lost_message_search import LostMessages
from conventions.recording.recorder import Recorder
from conventions.recording.restored_redis import compare
from conventions.sending.application import SendingApplication


def counter_of(app: SendingApplication) -> EventCounter:
    """Counts the journal of an application."""
    return EventCounter(app.store, app.settings.split_after)


@dataclass(frozen=True)
class Duties:
    """What must be told when the recorder ends; the rest ends with `stop` of `begin_duties`, or with the process."""

    lost: LostMessages
    sealer: AuditSealer | None

    def stop(self) -> None:
        """Before the recorder ends, if the process goes on after it."""
        self.lost.stop()

    def finish(self) -> None:
        """After the recorder's last events."""
        if self.sealer is not None:
            self.sealer.finish()


def begin_duties(
    app: SendingApplication, recorder: Recorder, stop: Callable[[], bool], on_step: Callable[[], object] = bool
) -> Duties:
    """Start what the recorder that leads does beside recording, each in a thread of its own. `on_step` counts a finished step."""
    # A comparison of many messages may take longer than STUCK_AFTER, so it counts its steps for the keeper.
    recorder.compare = lambda: compare(app, on_step) if app.port.keeps_claims else None
    lost = LostMessages(app, lambda: recorder.leads)
    lost.start()
    InterruptedStarts(app, lambda: recorder.leads).start(stop)
    Redriver(app, recorder.name, lambda: recorder.leads).start(stop)
    Relay(app, lambda: recorder.leads).start(stop)
    sealer = None
    if app.audit_keys is not None:
        level = logging.WARNING if app.settings.environment == "production" else logging.INFO
        sealer = AuditSealer(app.store, lambda: app.database, app.audit_keys, lambda: recorder.leads, level=level)
        sealer.start()
    LogMover(LiveLogs(app.store), lambda: app.database, lambda: recorder.leads).start(stop)
    Counting(
        recorder.count, lambda: recorder.leads, Depths(app.store), lambda: app.port.levels(known_queues(app))
    ).start(stop)
    return Duties(lost, sealer)
