"""All that the exporter of a real application serves: each metric has a sample."""

from collections import defaultdict
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from conventions import EVERY_ARGUMENT, ScheduledTask
from conventions.app import ConventionsApp
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.prometheus_server import text_of
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.schedules.beat_liveness import Beats
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule
from tests.recorded import append, drain, entry, event, recorder

Samples = Mapping[str, Mapping[str, set[str]]]
"""By the name of a sample: its labels, with the values that they have."""


class Planned(ScheduledTask):
    """Is sent each hour."""

    idempotent_on = EVERY_ARGUMENT

    def run(self) -> None:
        """Do nothing."""


SCHEDULE = [Schedule("planned", every(3600), Planned, {})]


def samples_of(app: ConventionsApp) -> Samples:
    """What is served, once there was a failure, a pause, a beat, a schedule, a worker and a job that runs."""
    app._schedule = f"{__name__}:SCHEDULE"
    append(app.store, entry(event(kind="dead", runtime=1.0, wait=1.0)))
    EventCounter(app.store).count_all()
    drain(recorder(app.store, app.database))
    Beats(app.store).tick("beat", leads=True)
    PauseActions(app.store).pause(Target("task", "Send"), "u-1", "a test")
    running = (RunningJob(task="Send", queue="mail", id="m2", since=1.0),)
    WorkerReports(app.store).say("worker", WorkerReport(processes=1, queues=("mail",), running=running))
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text_of(app).decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for name, value in sample.labels.items():
                labels[name].add(value)
    return found
