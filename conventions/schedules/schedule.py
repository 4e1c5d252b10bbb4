"""`Schedule`: which task runs when, with which arguments."""

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Literal, TypeAlias, get_args
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from conventions.broker.header_names import SCHEDULE
from conventions.core.errors import ConventionError, ScheduleError
from conventions.core.network_errors import is_network_error
from conventions.core.sealed_mark import SHOWN
from conventions.core.settings import Settings
from conventions.schedules.catch_up import RULES, CatchUp, Due, due_slots
from conventions.schedules.cron import Cron
from conventions.schedules.interval import Every
from conventions.schedules.slots import When
from conventions.tasks.base_classes import ConventionTask
from conventions.tasks.owners import class_of

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
Overlap: TypeAlias = Literal["allow", "skip"]

SCHEDULE_HEADER = SCHEDULE  # in its messages
OVERLAPS = get_args(Overlap)
NAMESPACE = UUID("6a1e1d0c-6f0b-5d0e-9d0c-6f2f4a3b7c55")  # of the message ids; it must never change


def planned_date(planned: datetime) -> date:
    """The date of the planned time, in the app's zone."""
    return planned.date()


def previous_day(planned: datetime) -> date:
    """The day before the planned time, in the app's zone."""
    return planned.date() - timedelta(days=1)


def week_of(planned: datetime) -> date:
    """The Monday of the week in which the planned time lies, in the app's zone."""
    return planned.date() - timedelta(days=planned.weekday())


@dataclass(frozen=True)
class Schedule:
    """One entry of `SCHEDULE` in `beat_schedule.py`.

    Args:
        name: its name on the command line and in Redis; letters, digits, `.`, `_` and `-`.
        when: `cron(...)` or `every(...)`.
        task: the task class, or what `@app.job` has made of a function.
        arguments: of its `run`, by name. A function of the planned time (an aware datetime in the app's zone), such as
            `planned_date`, is called for each slot.
        catch_up: what happens to slots that passed while no beat ran. `latest`: the last one runs, once. `all`: each
            one runs, the newest 1,000 at most. `none`: a slot runs only if it is on time.
        within: how late a slot may be sent, as a timedelta or in seconds; default: any time, and a minute with `none`.
        overlap: `skip`: a slot does not run while an earlier run of this schedule has not ended. A run lasts from its
            send to its last attempt; for a batch, to its `finish`. `allow`: runs may overlap.

    Raises:
        ScheduleError: it cannot work as written; the message says what to write.
    """

    name: str
    when: When
    task: type[ConventionTask] | ConventionTask
    arguments: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    catch_up: CatchUp = "latest"
    within: timedelta | float | None = None
    overlap: Overlap = "allow"

    def __post_init__(self) -> None:
        self._check_options()
        object.__setattr__(self, "task", class_of(self.task))  # of a job that `@app.job` has made
        _check_task(self.name, self.task)
        self._check_arguments(self._sample())

    def arguments_at(self, planned: datetime) -> dict[str, Any]:
        """The arguments for one slot, which must be in the app's zone."""
        return {
            argument: value(planned) if _is_function(value) else value for argument, value in self.arguments.items()
        }

    def message_id(self, planned: datetime) -> str:
        """The id of a slot's message: the same in every beat and every try."""
        return str(uuid5(NAMESPACE, f"{self.name} {planned.astimezone(UTC).isoformat()}"))

    def due(self, cursor: datetime, now: datetime, zone: tzinfo) -> Due:
        """The slots to run now, and the missed ones. `cursor` is the last slot that was sent."""
        return due_slots(self.when, cursor, now, zone, rule=self.catch_up, within=self.window)

    @property
    def window(self) -> timedelta | None:
        """How late a slot may be sent, if the entry limits it."""
        return timedelta(seconds=self.within) if isinstance(self.within, (int, float)) else self.within

    @property
    def rules(self) -> dict[str, Any]:
        """Everything but time, task and arguments, for people and for Redis; `within` in seconds."""
        within = None if self.window is None else self.window.total_seconds()
        return {"catch_up": self.catch_up, "within": within, "overlap": self.overlap}

    @property
    def shown_arguments(self) -> dict[str, str]:
        """The arguments for people; a function is shown by its name. Those of a task whose messages are sealed are not."""
        if getattr(self.task, "encrypt", False):
            return dict.fromkeys(self.arguments, SHOWN)
        return {
            name: f"{value.__name__}()" if _is_function(value) else str(value) for name, value in self.arguments.items()
        }

    def _check_options(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ScheduleError(f"Schedule({self.name!r}): a name has letters, digits, '.', '_' and '-' only")
        if not isinstance(self.when, (Cron, Every)):
            raise self._error(f'{self.when!r} is no time: write cron("0 9 * * *") or every(timedelta(minutes=5))')
        if not isinstance(self.arguments, Mapping):
            raise self._error('arguments are given by name: write {"day": planned_date}')
        for option, words in (("catch_up", RULES), ("overlap", OVERLAPS)):
            if (value := getattr(self, option)) not in words:
                raise self._error(f"{option}={value!r}: write {' or '.join(map(repr, words))}")
        self._check_window()

    def _check_window(self) -> None:
        right = self.within is None or isinstance(self.within, (int, float, timedelta))
        try:
            window = self.window if right and not isinstance(self.within, bool) else timedelta()
        except (OverflowError, ValueError):  # NaN, or out of range
            window = timedelta()
        if window is not None and window <= timedelta():
            raise self._error(f"within={self.within!r}: write how late a slot may run, such as timedelta(hours=2)")

    def _sample(self) -> datetime | None:
        """A slot for testing the arguments. `None` if the calendar cannot be asked now, or has ended."""
        zone, now = ZoneInfo(str(Settings.model_fields["timezone"].default)), datetime.now(UTC)
        try:
            slot = self.when.next_slot(now, zone)
            ended = slot is None and self.when.latest_slot(now, zone) is not None
        except Exception as error:  # whatever a team's calendar raises
            if _is_network_fault(error):
                logger.warning("%s", self._error(f"its calendar raised {type(error).__name__}: {error}"))
                return None
            raise self._error(f"its calendar raised {type(error).__name__}: {error}") from error
        if ended:
            logger.warning("%s", self._error("it never comes again, as its calendar has come to its end"))
        elif slot is None:
            raise self._error(f"{self.when} never comes, as its calendar allows none of its days")
        return slot

    def _check_arguments(self, sample: datetime | None) -> None:
        if unknown := [name for name in self.arguments if name not in self.task.arguments.names]:
            takes = ", ".join(self.task.arguments.names) or "none"
            raise self._error(
                f"{getattr(self.task, '__qualname__', self.task.name)} takes no argument {unknown[0]!r}; it takes {takes}"
            )
        for argument, value in self.arguments.items():
            self._check_function(argument, value)
        if sample is None:
            return
        try:
            values = self.arguments_at(sample)
        except Exception as error:  # whatever a team's function raises
            fault = f"a function of its arguments raised {type(error).__name__}: {error}"
            if _is_network_fault(error):  # the outage may be over when a slot comes
                logger.warning("%s", self._error(fault))
                return
            raise self._error(fault) from error
        try:
            self.task.arguments.bind((), values)
        except (TypeError, ConventionError) as error:
            raise self._error(str(error)) from error

    def _check_function(self, argument: str, value: Any) -> None:
        if not _is_function(value):
            return
        if getattr(value, "__name__", "<lambda>") == "<lambda>":
            raise self._error(f"argument {argument!r} must be a function with a name: write def …, or planned_date")
        if inspect.iscoroutinefunction(value):
            raise self._error(f"argument {argument!r} must be a plain function: write def, not async def")

    def _error(self, fault: str) -> ScheduleError:
        return ScheduleError(f'Schedule("{self.name}"): {fault}')


def _check_task(name: str, task: object) -> None:
    if not isinstance(task, type) or not issubclass(task, ConventionTask):
        raise ScheduleError(
            f'Schedule("{name}"): {task!r} is no task class: import the class that has the run method, and write its name'
        )
    if task.registered is None:
        raise ScheduleError(f'Schedule("{name}"): {task.__qualname__} is abstract: it defines no run')


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _is_network_fault(error: Exception) -> bool:
    """Whether the error comes from a present outage, and not from the code."""
    return isinstance(error, OSError) or is_network_error(error)
