"""How the pages get into Flower: through its list of handlers, its template loader, and its command.

Flower has no interface for plugins. These places are the same in every release since 1.0. `tests/console/` fails on a release
that has changed them.
"""

import logging
from pathlib import Path
from typing import Any

from flower import urls as flower_urls
from flower.events import Events
from tornado import template, web

from conventions.console.alerts import AlertList, ChangeSilence
from conventions.console.audit import AuditPage
from conventions.console.batches import BatchDetail, BatchList, CancelBatch, RetryFailed
from conventions.console.dead_letters import (
    DiscardLetters,
    EditableLetterDetail,
    LetterList,
    RedriveLetters,
    RevealLetter,
    WriteGroupNote,
)
from conventions.console.flower_events import with_filter
from conventions.console.flower_handlers import guard_handlers
from conventions.console.jobs import CancelJob, JobDetail, JobList, RevealJob
from conventions.console.now import NowPage
from conventions.console.page import STATIC, Static
from conventions.console.queues import ChangePause, QueueList
from conventions.console.redrives import RedriveDetail, RedriveList, StopRedrive
from conventions.console.schedules import PauseSchedule, ResumeSchedule, RunSchedule, ScheduleDetail, ScheduleList
from conventions.console.search import SearchJobs, SearchLetters
from conventions.console.tasks import TaskDetail
from conventions.storage.database import utc_now

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
NAVIGATION = "navbar.html"
ANCHOR = "reverse_url('broker')"  # our entries come in place of this one
ITEM = '<li class="nav-item">'
ENTRIES = (
    ("conventions-queues", "Queues"),
    ("conventions-jobs", "Jobs"),
    ("conventions-letters", "Dead letters"),
    ("conventions-batches", "Batches"),
    ("conventions-schedules", "Schedules"),
    ("conventions-alerts", "Alerts"),
    ("conventions-audit", "Audit"),
)

PAGES = (
    (r"/dead-letters", LetterList, "conventions-letters"),
    (r"/dead-letters/letters/(.+)/reveal", RevealLetter, "conventions-letter-reveal"),
    (r"/dead-letters/letters/(.+)", EditableLetterDetail, "conventions-letter"),
    (r"/dead-letters/redrive", RedriveLetters, "conventions-send"),
    (r"/dead-letters/discard", DiscardLetters, "conventions-discard"),
    (r"/dead-letters/notes/([^/]+)", WriteGroupNote, "conventions-note"),
    (r"/dead-letters/redrives", RedriveList, "conventions-redrives"),
    (r"/dead-letters/redrives/([^/]+)", RedriveDetail, "conventions-redrive"),
    (r"/dead-letters/redrives/([^/]+)/stop", StopRedrive, "conventions-stop"),
    (r"/batches", BatchList, "conventions-batches"),
    (r"/batches/([^/]+)", BatchDetail, "conventions-batch"),
    (r"/batches/([^/]+)/cancel", CancelBatch, "conventions-batch-cancel"),
    (r"/batches/([^/]+)/retry-failed", RetryFailed, "conventions-batch-retry"),
    (r"/schedules", ScheduleList, "conventions-schedules"),
    (r"/schedules/([^/]+)", ScheduleDetail, "conventions-schedule"),
    (r"/schedules/([^/]+)/pause", PauseSchedule, "conventions-schedule-pause"),
    (r"/schedules/([^/]+)/resume", ResumeSchedule, "conventions-schedule-resume"),
    (r"/schedules/([^/]+)/run", RunSchedule, "conventions-schedule-run"),
    (r"/audit", AuditPage, "conventions-audit"),
    (r"/queues", QueueList, "conventions-queues"),
    (r"/queues/pauses", ChangePause, "conventions-pauses"),
    (r"/alerts", AlertList, "conventions-alerts"),
    (r"/alerts/silences", ChangeSilence, "conventions-silences"),
    (r"/search/jobs", SearchJobs, "conventions-search-jobs"),
    (r"/search/dead-letters", SearchLetters, "conventions-search-letters"),
    (r"/jobs", JobList, "conventions-jobs"),
    (r"/jobs/(.+)/cancel", CancelJob, "conventions-job-cancel"),
    (r"/jobs/(.+)/reveal", RevealJob, "conventions-job-reveal"),
    (r"/jobs/(.+)", JobDetail, "conventions-job"),
    (r"/tasks/(.+)", TaskDetail, "conventions-task"),
)

NOW = web.url(r"/", NowPage, name="main")
# What Flower has heard by events is neither all of a job nor all jobs: its pages say so, and where the rest is.
HEARD = "<p>{{ handler.heard }} <a href=\"{{ reverse_url('%s') }}\">%s</a> has what was recorded.</p>"
LABEL = '<p class="metric-label">%s</p>'
# Flower's script writes the time of its last look in the zone of the browser. All else is in that of the settings.
CLOCK = """<script>
  Date.prototype.toLocaleTimeString = function () {
    return this.toLocaleString("en-GB", {
      timeZone: "{{ handler.capp.settings.timezone }}", timeZoneName: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    });
  };
</script>
"""
WORKERS_HEAD, TASKS_HEAD, TASK_HEAD = (
    f'<p class="page-eyebrow">{text}</p>' for text in ("Cluster overview", "Task history", "Task details")
)
TASK_LINK = "<p><a href=\"{{ reverse_url('conventions-job', task.uuid) }}\">The whole story of this job</a></p>"
# By page of Flower: what is found there, and what comes in its place.
CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "task.html": ((TASK_HEAD, TASK_HEAD + TASK_LINK),),
    "tasks.html": ((TASKS_HEAD, TASKS_HEAD + HEARD % ("conventions-jobs", "Jobs")),),
    "workers.html": (
        (WORKERS_HEAD, WORKERS_HEAD + HEARD % ("main", "Now") + CLOCK),
        *((LABEL % name, LABEL % f"{name}, heard") for name in ("Succeeded", "Failed")),
    ),
}
FIRST = '<ul class="app-nav navbar-nav">'  # "Now" is the first entry of this list


def install() -> None:
    """Add the pages to the next Flower that this process creates. A second call does nothing."""
    if any(getattr(one, "name", None) == PAGES[0][2] for one in flower_urls.handlers):
        return
    ours: list[Any] = [web.url(pattern, handler, name=name) for pattern, handler, name in PAGES]
    static = {"path": str(STATIC)}
    ours.append(web.url(r"/conventions-static/(.*)", Static, static, name="conventions-static"))
    guard_handlers(flower_urls.handlers, flower_urls.settings)
    if not hasattr(Events.on_event, "is_checked"):
        Events.on_event = with_filter(Events.on_event)
    flower_urls.handlers[-1:-1] = ours  # the last handler matches every address
    # Flower's own page of workers is at `/workers`, too.
    flower_urls.handlers[:] = [NOW if getattr(one, "name", None) == "main" else one for one in flower_urls.handlers]
    flower_urls.settings["conventions_begun_at"] = utc_now()
    flower_urls.settings["template_loader"] = TemplateLoader(flower_urls.settings["template_path"])


class TemplateLoader(template.Loader):
    """Loads Flower's templates and ours, adds our entries to the navigation, and says on Flower's pages what they lack."""

    def _create_template(self, name: str) -> template.Template:
        own = FOLDER / "templates" / name
        if own.is_file():
            return template.Template(own.read_text(encoding="utf-8"), name=name, loader=self)
        if name == NAVIGATION:
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            return template.Template(with_entries(text), name=name, loader=self)
        if name in CHANGES:
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            for found_there, ours in CHANGES[name]:
                text = text.replace(found_there, ours)
            return template.Template(text, name=name, loader=self)
        found: template.Template = super()._create_template(name)
        return found


def with_entries(text: str) -> str:
    """Flower's navigation with our entries in it. If Flower has changed the navigation, our entries come after it."""
    head, first, rest = text.partition(FIRST)
    if first:
        text = head + first + _entry(("main", "Now")) + rest
    before, found, after = text.partition(ANCHOR)
    head, item, _ = before.rpartition(ITEM)
    _, end, tail = after.partition("</li>")
    if found and item and end:
        return head + "".join(map(_entry, ENTRIES)) + tail
    logger.warning("Flower's navigation has changed: the pages of the console are listed below it")
    return text + '<ul class="app-nav navbar-nav">' + "".join(map(_entry, ENTRIES)) + "</ul>"


def _entry(entry: tuple[str, str]) -> str:
    name, title = entry
    chosen = f"{{% if active_tab == '{name}' %}}"
    return (
        f'<li class="nav-item"><a class="nav-link{chosen} active{{% end %}}" href="{{{{ reverse_url(\'{name}\') }}}}"'
        f' {chosen}aria-current="page"{{% end %}}>{title}</a></li>'
    )
