"""One task's page: its rules, its figures of the last hour, what runs and waits of it, and its last failures."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from conventions.console import display, plots
from conventions.console.page import Page
from conventions.core.durations import duration
from conventions.metrics.event_sums import added
from conventions.metrics.rates_and_times import Figures, by_series
from conventions.metrics.read_counts import Counts
from conventions.now.job_filter import JobFilter
from conventions.now.job_listing import list_jobs
from conventions.now.pause_targets import known_targets, names_meant
from conventions.pauses.pause_store import Pauses, Target

MINUTES = 60
FAILURES, RUNNING = 20, 20  # rows


class Rule(NamedTuple):
    """One thing that the class of a task says."""

    name: str
    text: str


class TaskDetail(Page):
    """`/tasks/<name>`. The last part of a name, or an alias, leads to the task that is meant."""

    tab = "conventions-jobs"
    title = "Task"

    async def get(self, name: str) -> None:
        """Show it; or, where it is only a part of the name of several tasks, those."""
        names = await self.in_thread(self._meant, name)
        if len(names) > 1:
            self.show("conventions_task_names.html", name=name, names=names)
            return
        if names and names[0] != name:
            self.redirect(self.reverse_url("conventions-task", names[0]), status=HTTPStatus.SEE_OTHER)
            return
        found = await self.in_thread(self._find, name)
        zone = ZoneInfo(self.capp.settings.timezone)
        self.show(
            "conventions_task.html",
            name=name,
            is_there=bool(names),
            rules=rules_of(self.capp.tasks.get(name)),
            plot=_plot(found["by_minute"], zone),
            length=lambda seconds: "" if seconds is None else display.runtime_text(seconds),
            percent=lambda share: "" if share is None else f"{100 * share:.3g} %",
            number=lambda count: f"{count:,}",
            sees_values=self.visitor.sees_values,
            **found,
        )

    def _meant(self, name: str) -> list[str]:
        """The names of the tasks that may be meant; none where there is no such task here."""
        return names_meant(self.capp, "task", name, known_targets(self.capp, "task"))

    def _find(self, name: str) -> dict[str, Any]:
        app = self.capp
        counts = Counts(app.store)
        hour = [
            (series.queue, figures) for series, figures in by_series(counts, MINUTES).items() if series.task == name
        ]
        last = counts.this_minute()
        by_minute = counts.minutes(last - MINUTES + 1, last)
        figures = [
            (minute, Figures(added([one for series, one in by_minute.get(minute, {}).items() if series.task == name])))
            for minute in range(last - MINUTES + 1, last + 1)
        ]
        causes = [one for one in counts.causes() if one.task == name]
        running = list_jobs(app, JobFilter(state="running", task=name), RUNNING)
        dead = list_jobs(app, JobFilter(state="dead", task=name), FAILURES)
        pause = Pauses(app.store).read().pauses.get(Target("task", name))
        absent = running.absent | dead.absent
        return {
            "hour": hour,
            "by_minute": figures,
            "causes": causes,
            "running": running.lines,
            "dead": dead.lines,
            "pause": pause,
            "absent": absent,
        }


def rules_of(task: Any) -> list[Rule]:
    """What the class of a task says, in words; empty for one that is not known here."""
    if task is None:
        return []
    found = [
        Rule("effect", _effect(type(task))),
        Rule("queue", str(getattr(task, "queue_name", "") or "")),
    ]
    if aliases := getattr(task, "aliases", ()):
        found.append(Rule("aliases", ", ".join(aliases)))
    if (idempotent_on := getattr(task, "idempotent_on", None)) is not None:
        found.append(
            Rule(
                "runs once for each",
                ", ".join(map(str, idempotent_on)) if isinstance(idempotent_on, tuple) else "set of arguments",
            )
        )
    elif reason := getattr(task, "not_idempotent", None):
        found.append(Rule("may run twice", str(reason)))
    if (policy := getattr(task, "retry_policy", None)) is not None:
        first, most = (_seconds(value) for value in (policy.first_wait, policy.max_wait))
        found.append(
            Rule(
                "tried",
                f"{policy.attempts} times at the most, {policy.network_attempts} after network errors; {first} to {most} between two",
            )
        )
    if requires := getattr(task, "requires", None):
        found.append(
            Rule("requires", requires if isinstance(requires, str) else "a permission that depends on the arguments")
        )
    for name, title in (
        ("soft_time_limit", "told to end after"),
        ("time_limit", "ended after"),
        ("stalls_after", "hangs after, without progress"),
    ):
        if limit := getattr(task, name, None):
            found.append(Rule(title, _seconds(limit)))
    if rate := getattr(task, "rate_limit", None):
        found.append(Rule("rate limit", f"{rate} in each worker"))
    return [one for one in found if one.text]


def _effect(cls: type) -> str:
    """The first line of what the class of a task says of itself; Celery makes a class without one of it."""
    return next((one.__doc__ for one in cls.__mro__ if one.__doc__), "").strip().partition("\n")[0]


def _seconds(value: Any) -> str:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    return duration(seconds)


def _plot(by_minute: list[tuple[int, Figures]], zone: ZoneInfo) -> str:
    labels = [datetime.fromtimestamp(minute * 60, UTC).astimezone(zone).strftime("%H:%M") for minute, _ in by_minute]
    tracks = [plots.Track(kind, [one.of(kind) for _, one in by_minute]) for kind in ("succeeded", "retried", "dead")]
    return plots.bars(plots.Frame("Attempts by the minute", labels, []), tracks)
