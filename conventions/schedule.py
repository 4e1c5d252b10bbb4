"""`Schedule`: which task runs when, with which arguments; and `load_schedule`, which reads the list of them."""

import re
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from celery.utils.imports import import_from_cwd

from conventions.cron import Cron, Every, When
from conventions.errors import ConfigurationError, ConventionError, ScheduleError
from conventions.settings import Settings
from conventions.task import ConventionTask

NAME = re.compile(r"[A-Za-z0-9_.-]+")
NAMESPACE = UUID("6a1e1d0c-6f0b-5d0e-9d0c-6f2f4a3b7c55")  # of the message ids; fixed for ever


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
        name: what it is called on the command line and in Redis; letters, digits, `.`, `_` and `-`.
        when: `cron(...)` or `every(...)`.
        task: the task class.
        arguments: those of its `run`, by name. A function of the planned time (an aware datetime in the app's zone),
            such as `planned_date`, is called for each slot.
        catch_up: what happens to slots that passed while no beat ran: `latest` runs the last of them, once.
        within: not built yet; must be `None`.
        overlap: not built yet; must be `allow`.

    Raises:
        ScheduleError: it cannot work as written; the message says what to write.
    """

    name: str
    when: When
    task: type[ConventionTask]
    arguments: Mapping[str, Any] = field(default=MappingProxyType({}))
    _: KW_ONLY
    catch_up: Literal["latest"] = "latest"
    within: None = None
    overlap: Literal["allow"] = "allow"

    def __post_init__(self) -> None:
        self._check_options()
        _check_task(self.name, self.task)
        for argument, value in self.arguments.items():
            if _is_function(value) and getattr(value, "__name__", "<lambda>") == "<lambda>":
                raise self._error(f"argument {argument!r} must be a function with a name: write def …, or planned_date")
        self._check_arguments(self._sample())

    def arguments_at(self, planned: datetime) -> dict[str, Any]:
        """The arguments for one slot, which must be in the app's zone."""
        return {
            argument: value(planned) if _is_function(value) else value for argument, value in self.arguments.items()
        }

    def message_id(self, planned: datetime) -> str:
        """The id of a slot's message: the same from every beat and every try."""
        return str(uuid5(NAMESPACE, f"{self.name} {planned.astimezone(UTC).isoformat()}"))

    def due(self, cursor: datetime, now: datetime, zone: tzinfo) -> datetime | None:
        """The slot to run now: the latest that is later than `cursor`, which is the last one that was sent."""
        slot = self.when.latest_slot(now, zone)
        return slot if slot is not None and slot.timestamp() > cursor.timestamp() else None

    @property
    def shown_arguments(self) -> dict[str, str]:
        """The arguments for people: a function by its name."""
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
        for option, only in (("catch_up", "latest"), ("within", None), ("overlap", "allow")):
            if (value := getattr(self, option)) != only:
                raise self._error(f"{option}={value!r} is not built yet; only {only!r} is: leave it out")

    def _sample(self) -> datetime:
        zone = ZoneInfo(str(Settings.model_fields["timezone"].default))
        try:
            slot = self.when.next_slot(datetime.now(UTC), zone)
        except Exception as error:  # whatever a team's calendar raises
            raise self._error(f"its calendar raised {type(error).__name__}: {error}") from error
        if slot is None:
            raise self._error(f"{self.when} never comes, as its calendar allows none of its days")
        return slot

    def _check_arguments(self, sample: datetime) -> None:
        try:
            values = self.arguments_at(sample)
        except Exception as error:  # whatever a team's function raises
            raise self._error(f"a function of its arguments raised {type(error).__name__}: {error}") from error
        try:
            self.task.arguments.bind((), values)
        except (TypeError, ConventionError) as error:
            raise self._error(str(error)) from error

    def _error(self, fault: str) -> ScheduleError:
        return ScheduleError(f'Schedule("{self.name}"): {fault}')


def load_schedule(app: Any) -> tuple[Schedule, ...]:
    """The schedules of an application, from its `schedule_address`; none when it has no address.

    Raises:
        ConfigurationError: the list cannot be imported, or is no list of schedules with different names.
    """
    address = app.schedule_address
    if address is None:
        return ()
    module, _, name = address.partition(":")
    found = getattr(_import(module, address), name or "SCHEDULE", None)
    if found is None:
        raise ConfigurationError([f"schedule {address}: the module has no {name or 'SCHEDULE'}"])
    if not isinstance(found, (list, tuple)):
        raise ConfigurationError([f"schedule {address}: it must be a list of Schedule(...), no {type(found).__name__}"])
    faults = [f"schedule {address}: {entry!r} is no Schedule" for entry in found if not isinstance(entry, Schedule)]
    counts = Counter(entry.name for entry in found if isinstance(entry, Schedule))
    faults += [
        f'schedule {address}: {count} schedules are called "{name}"; give each a name of its own'
        for name, count in counts.items()
        if count > 1
    ]
    if faults:
        raise ConfigurationError(faults)
    return tuple(found)


def _import(module: str, address: str) -> Any:
    try:
        return import_from_cwd(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise _fault(address, error) from error
        raise ConfigurationError(
            [f"schedule {address}: there is no module {module}; create it, or name another in create_app(schedule=...)"]
        ) from error
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the module raises, the answer is where
        raise _fault(address, error) from error


def _fault(address: str, error: Exception) -> ConfigurationError:
    package = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    frames = [frame for frame in frames if package not in frame.filename and "celery" not in frame.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    kind = "" if isinstance(error, ConventionError) else f"{type(error).__name__}: "
    return ConfigurationError([f"schedule {address}{place}: {kind}{error}"])


def _check_task(name: str, task: Any) -> None:
    if not isinstance(task, type) or not issubclass(task, ConventionTask):
        raise ScheduleError(
            f'Schedule("{name}"): {task!r} is no task class: import the class that has the run method, and write its name'
        )
    if task.registered is None:
        raise ScheduleError(f'Schedule("{name}"): {task.__qualname__} is abstract: it defines no run')


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)
