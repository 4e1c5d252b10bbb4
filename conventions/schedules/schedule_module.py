"""`load_schedule`: the list of an application's schedules, from its `beat_schedule.py`."""

import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import celery

from conventions.core.errors import ConfigurationError, ConventionError
from conventions.execution.application import Application
from conventions.library_internals.celery import import_from_cwd
from conventions.schedules.schedule import Schedule


def load_schedule(app: Application) -> tuple[Schedule, ...]:
    """The schedules of an application, from its `schedule_address`; none when it has no address.

    Raises:
        ConfigurationError: the list cannot be imported, is not a list of schedules with different names, or names a
            task that no worker knows; or Celery's own list has entries, which would never run.
    """
    address = app.schedule_address
    if names := ", ".join(map(str, app.conf.beat_schedule or ())):
        raise ConfigurationError(
            [f"beat_schedule of Celery's configuration is not read, and has {names}: write Schedule(...) in SCHEDULE"]
        )
    if address is None:
        return ()
    module, _, name = address.partition(":")
    known = app.worker_tasks  # read before importing the schedule, since workers do not import it
    found = getattr(_import(module, address), name or "SCHEDULE", None)
    if found is None:
        raise ConfigurationError([f"schedule {address}: the module has no {name or 'SCHEDULE'}"])
    if not isinstance(found, (list, tuple)):
        raise ConfigurationError([f"schedule {address}: it must be a list of Schedule(...), no {type(found).__name__}"])
    faults = [f"schedule {address}: {entry!r} is no Schedule" for entry in found if not isinstance(entry, Schedule)]
    entries = [entry for entry in found if isinstance(entry, Schedule)]
    faults += [f"schedule {address}: {fault}" for fault in (*_doubled(entries), *_unknown(entries, known))]
    if faults:
        raise ConfigurationError(faults)
    return tuple(found)


def _doubled(entries: Sequence[Schedule]) -> Iterator[str]:
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            yield f'{count} schedules are called "{name}"; give each a name of its own'


def _unknown(entries: Sequence[Schedule], known: Collection[str]) -> Iterator[str]:
    for entry in entries:
        if entry.task.name not in known:
            yield (
                f'Schedule("{entry.name}"): no worker knows {entry.task.name}, since its module is in none of the task '
                f"packages: move it there, or add {entry.task.__module__!r} to create_app(packages=[...])"
            )


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
    except Exception as error:  # whatever the module raises, the error says where
        raise _fault(address, error) from error


def _fault(address: str, error: Exception) -> ConfigurationError:
    kind = "" if isinstance(error, ConventionError) else f"{type(error).__name__}: "
    return ConfigurationError([f"schedule {address}{_place(error)}: {kind}{error}"])


def _place(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    ours = (Path(__file__).parents[1], Path(celery.__file__).parent)
    frames = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(one) for one in ours)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
