"""`Evaluator`: judges every ten seconds what is wrong, and keeps the episodes; while it leads, `Delivery` tells the receivers, and `Heartbeat` says that it judges.

It runs outside the workers: beside each beat, and in `celery metrics --port`. Any number may run; one leads, by a lease in Redis. What is told
is written in the step that changes an episode, so each change is told once, whoever dies in between. A message that was sent and not noted
as sent, because its process died just then, is sent once more, under the same id.
"""

import logging
import os
import socket
import time
from datetime import UTC, datetime

from conventions.alerts.alert_store import AlertStore, Message
from conventions.alerts.delivery import Delivery
from conventions.alerts.episode import Transition, judged
from conventions.alerts.heartbeat import Heartbeat
from conventions.alerts.message_body import body_of
from conventions.alerts.receivers import receivers
from conventions.alerts.rules import all_findings, goes_on
from conventions.alerts.what_rules_see import look_at
from conventions.core.background_rounds import Rounds
from conventions.execution.application import Application

logger = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two looks
MINUTE = 60.0
LEADS_FOR = 35.0  # seconds after which another one takes over
TELL_EVERY = 1.0  # seconds between two looks at what is to be told


class Evaluator:
    """That of one process.

    Args:
        app: the application; its tasks are loaded.

    Raises:
        ConfigurationError: a receiver of the settings cannot work.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._store = AlertStore(app.store)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._receivers = receivers(app.settings)
        self._delivery = Delivery(self._store, self._receivers)
        self._heartbeat = Heartbeat(app.settings.heartbeat_url, app.main)
        self._looked_at = 0.0
        self._leads = False
        self._rounds = (
            Rounds("alerts", self.look, EVERY, fault="alerts are not judged now", logger=logger),
            Rounds("alert messages", self.tell, TELL_EVERY, fault="alerts are not told now", logger=logger),
            Rounds("heartbeat", self.beat, TELL_EVERY, fault="the heartbeat is not sent now", logger=logger),
        )

    def start(self) -> None:
        """Begin, in threads of their own."""
        for one in self._rounds:
            one.start()

    def stop(self) -> None:
        """End, and let another one lead."""
        for one in self._rounds:
            one.stop(within=1.0)
        if self._leads:
            self._store.leave(self._name)

    def look(self) -> list[Transition]:
        """Judge once, if this process leads. Returns what changed. Raises: RedisError."""
        self._leads = self._store.lead(self._name, LEADS_FOR)
        if not self._leads:
            return []
        thresholds = self._app.settings.thresholds
        look = look_at(self._app, thresholds)
        found, on = all_findings(look, thresholds), goes_on(look, thresholds)
        silences = self._store.silences(datetime.now(UTC))
        span = thresholds.letters_window * MINUTE
        episodes, changes, told = judged(self._store.episodes(), found, on, silences, time.time(), span=span)
        messages = [
            Message(f"{one.episode.id} {one.change} {name}", name, body_of(self._app.main, one))
            for one in told
            for name in self._receivers
        ]
        over = [one for one in changes if one.change == "resolved"]
        if not self._store.save(self._name, LEADS_FOR, episodes, over, messages):
            self._leads = False
            return []
        self._looked_at = time.monotonic()
        for one in told:
            _log(one, silent=False)
        heard = {(one.change, one.episode.id) for one in told}
        for one in changes:
            if (one.change, one.episode.id) not in heard:
                _log(one, silent=True)
        return changes

    def tell(self) -> int:
        """Send what is due, if this process leads. Returns how many messages arrived. Raises: RedisError."""
        return self._delivery.send_due() if self._leads else 0

    def beat(self) -> None:
        """Send the heartbeat, if this process leads and has judged a moment ago. It waits for no receiver of alerts."""
        if self._leads and time.monotonic() - self._looked_at <= LEADS_FOR:
            self._heartbeat.send_if_due()


def _log(one: Transition, *, silent: bool) -> None:
    word = f"alert {one.change}{', silent' if silent else ''}"
    level = logging.INFO if one.change == "resolved" else logging.WARNING
    logger.log(level, "%s: %s: %s", word, one.episode.finding.key, one.episode.finding.says)
