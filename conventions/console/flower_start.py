"""What runs before `celery flower` starts: it refuses a Flower that is open to everybody, and adds the pages (R22)."""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

from conventions.console.local_addresses import is_local
from conventions.core.address_safety import fault_of_password
from conventions.core.errors import ConfigurationError
from conventions.execution.application import Application
from conventions.execution.json_log import JsonFormatter
from conventions.execution.log_redaction import make_safe
from conventions.sealing.shown_to_people import close_process

OPEN_API = "FLOWER_UNAUTHENTICATED_API"
_LOGIN = re.compile(r"[!-9;-~]+:[ -~]+")


def prepare_command(is_ours: Callable[[Any], bool]) -> None:
    """Give `celery flower` of an application of ours the console, if that command may run in this process.

    Celery imports the commands of all packages before the application, so Flower's command exists by now. Nothing else imports
    Flower's modules.
    """
    command = sys.modules.get("flower.command")
    if command is None:
        return
    flower: Any = command.flower
    original = getattr(flower.callback, "without_console", flower.callback)

    @functools.wraps(original)
    def with_console(*args: Any, tornado_argv: tuple[str, ...] = (), **kwargs: Any) -> Any:
        app = click.get_current_context().obj.app
        if is_ours(app):
            start(app, command, tornado_argv)
        return original(*args, tornado_argv=tornado_argv, **kwargs)

    with_console.without_console = original  # type: ignore[attr-defined]  # for a second application in this process
    flower.callback = with_console


def start(app: Application, command: Any, arguments: tuple[str, ...]) -> None:
    """Read Flower's options, check them, and add the pages. Raises: ConfigurationError."""
    from conventions.console.flower_plugin import install  # noqa: PLC0415  # Tornado and Flower, only for this command

    make_safe()
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")  # it would listen on every address, without a login
    if app.settings.log_format == "json":
        from tornado import log  # noqa: PLC0415  # the same

        log.LogFormatter = JsonFormatter  # type: ignore[assignment, misc]  # it is given to each handler that an option of Flower asks for
    command.apply_env_options()
    command.apply_options(sys.argv[0], arguments)
    check(command.options, app.settings.environment)
    install()
    close_process()  # Flower's own pages and API show results, too


def check(options: Any, environment: str) -> None:
    """Refuse to start if everybody could read or change data.

    Args:
        options: of Flower.
        environment: `development` or `production`.

    Raises:
        ConfigurationError: with every fault.
    """
    faults = [
        f"login {place} of FLOWER_BASIC_AUTH is no user:password in ASCII, so anybody or nobody could use it"
        for place, login in enumerate(options.basic_auth or (), 1)
        if not _LOGIN.fullmatch(login)
    ]
    if options.debug and environment == "production":
        faults.append("--debug shows tracebacks to whoever causes an error: leave it out in production")
    has_login = bool(options.basic_auth or options.auth)
    if not has_login and not (options.unix_socket or is_local(options.address)):
        faults.append(
            f"Flower would listen on {options.address or 'every address'} without a login: set FLOWER_BASIC_AUTH to "
            "user:password, or --auth, or leave out --address"
        )
    elif not has_login and environment == "production":
        faults.append("Flower needs a login in production: set FLOWER_BASIC_AUTH to user:password, or --auth")
    if environment == "production":
        faults += [
            f"login {place} of FLOWER_BASIC_AUTH: {fault}"
            for place, login in enumerate(options.basic_auth or (), 1)
            if (fault := fault_of_password(login.partition(":")[2], login.partition(":")[0]))
        ]
    if os.environ.get(OPEN_API, "").lower() not in ("", "0", "false", "no", "off"):
        faults.append(f"{OPEN_API} lets every web page run tasks: leave it out")
    if faults:
        raise ConfigurationError(faults)
