"""What a Django project says: `settings.CONVENTIONS`, and that our tables lie in its database."""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from conventions.core.errors import ConfigurationError

NAME = "CONVENTIONS"
APP = __package__
OF_DJANGO = "django://"
DEFAULT_ADDRESS = f"{OF_DJANGO}default"


def is_configured() -> bool:
    """Whether this process has settings of Django, or the environment names them."""
    if (loaded := sys.modules.get("django.conf")) is not None and loaded.settings.configured:
        return True
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


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


def alias_in(database_url: str | None) -> str | None:
    """The alias of Django's `DATABASES` that an address names; `None` for an address of another form."""
    if database_url is None or not database_url.startswith(OF_DJANGO):
        return None
    return database_url.removeprefix(OF_DJANGO)
