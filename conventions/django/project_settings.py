"""What a Django project says: `settings.CONVENTIONS`, and that our tables lie in its database."""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from conventions.core.errors import ConfigurationError
from conventions.library_internals.django import tests_run

NAME = "CONVENTIONS"
APP = __package__
OF_DJANGO = "django://"
NOBODY = "unix:///no-broker-in-tests-of-django"
DEFAULT_ADDRESS = f"{OF_DJANGO}default"


def is_configured() -> bool:
    """Whether this process has settings of Django, or the environment names them."""
    loaded: Any = sys.modules.get("django.conf")
    if loaded is not None and getattr(loaded.settings, "configured", False):
        return True
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return False
    try:
        import django  # noqa: F401, PLC0415  # Celery warns where there is none
    except ImportError:
        return False
    return True


def project_settings() -> dict[str, Any]:
    """The values of `settings.CONVENTIONS` by the names of our settings; nothing where there is no Django.

    `database_url` is `django://default` where this application is installed, unless the project says another one.

    Raises:
        ConfigurationError: it is no dictionary, or a name is not in capitals.
    """
    if not is_configured():
        return {}
    from django.conf import settings  # noqa: PLC0415  # no process without Django needs it

    said: Any = getattr(settings, NAME, {})
    if not isinstance(said, Mapping):
        raise ConfigurationError([f'settings.{NAME}: write a dictionary, such as {{"LEASE": 30}}'])
    if faults := [
        f"settings.{NAME}[{name!r}]: write the name in capitals"
        for name in said
        if not isinstance(name, str) or name != name.upper()
    ]:
        raise ConfigurationError(faults)
    installed = any(str(app).startswith(APP) for app in settings.INSTALLED_APPS)
    return ({"database_url": DEFAULT_ADDRESS} if installed else {}) | {name.lower(): said[name] for name in said}


def task_backends() -> list[Any]:
    """The backends of `django.tasks` that are ours, or derived from ours; none before Django 6.

    Raises:
        ConfigurationError: `settings.TASKS` has a fault.
    """
    if not is_configured() or find_spec("django.tasks") is None:
        return []
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415  # no process without Django needs it
    from django.tasks import task_backends as backends  # noqa: PLC0415  # the same

    try:
        return [one for one in backends.all() if getattr(one, "is_conventions", False)]
    except ImproperlyConfigured as error:
        raise ConfigurationError([str(error)]) from error


def queues_of_tasks() -> tuple[str, ...]:
    """Their queues, but for `default`, which is that of immediate jobs. Raises: ConfigurationError."""
    return tuple(sorted({name for one in task_backends() for name in one.queues} - {"default"}))


def settings_of_tests() -> dict[str, Any]:
    """What holds in Django's tests where nothing else is said.

    `broker_url` is an address where nobody is: jobs run by `apply`, and none goes to a broker that runs in this folder.
    """
    return {"broker_url": NOBODY} if tests_run() else {}


def alias_in(database_url: str | None) -> str | None:
    """The alias of Django's `DATABASES` that an address names; `None` for an address of another form."""
    if database_url is None or not database_url.startswith(OF_DJANGO):
        return None
    return database_url.removeprefix(OF_DJANGO)
