"""`celery -A <app> schedule convert`: the schedules of a plain application, as text for `beat_schedule.py`."""

from itertools import chain

import click
from celery.app.utils import find_app
from celery.bin.base import CeleryCommand

from conventions.adoption.old_schedules import OldSchedule, old_schedules, written
from conventions.app import is_ours
from conventions.cli.base import app_of, one_line_errors, say
from conventions.core.errors import ConfigurationError
from conventions.django.project_settings import is_configured
from conventions.library_internals.celery import cwd_in_path


@click.command(cls=CeleryCommand)
@click.argument("old")
@click.pass_context
@one_line_errors
def convert(context: click.Context, old: str) -> None:
    """Print the schedules of the plain application OLD as they are written in `beat_schedule.py`.

    OLD is what `celery -A` takes. It reads Celery's `beat_schedule`, and the tables of django-celery-beat where that is installed. An entry that
    would not do the same is a comment with the reason. It changes nothing.
    """
    app = app_of(context)
    app.loader.import_default_modules()
    try:
        with cwd_in_path():
            plain = find_app(old)
    except (AttributeError, ImportError) as error:
        raise ConfigurationError([f"{old}: there is no application of Celery: {error}"]) from error
    if is_ours(plain):
        raise ConfigurationError([f"{old}: it is an application of ours; name that of the plain one"])
    plain.loader.import_default_modules()
    plain.finalize()
    zone = str(plain.timezone)
    entries = chain(old_schedules(plain.conf.beat_schedule or {}), _of_django())
    say(written(entries, app.tasks, app.settings.timezone, zone))


def _of_django() -> list[OldSchedule]:
    if not is_configured():
        return []
    from conventions.django.periodic_tasks import periodic_tasks  # noqa: PLC0415  # only where there is Django

    return [OldSchedule(**row) for row in periodic_tasks()]
