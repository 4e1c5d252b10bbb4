"""`Authorizer`: answers whether an actor may do something. The team's own is named by `CONVENTIONS_AUTHORIZER`."""

import importlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Protocol, runtime_checkable

from conventions.core.error_text import first_line
from conventions.core.errors import ConfigurationError

SETTING = "CONVENTIONS_AUTHORIZER"


@runtime_checkable
class Authorizer(Protocol):
    """Says who may do what. It is made once in each process that runs jobs, with the application: `MyAuthorizer(app)`.

    Threads call it at the same time. An attribute `looks_at_arguments = False` says that the answer does not depend on the arguments: then one answer
    counts for all jobs of the same actor, permission and task.
    """

    def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the actor has the permission now.

        Args:
            actor: as the message names it: a user id, `system`, `beat`.
            permission: what the task requires.
            task: its name.
            arguments: of the job, as JSON values.

        Raises:
            Exception: it cannot answer. The job is tried again by its retry policy, and is denied in the end.
        """
        ...


def load(address: str, app: object) -> Authorizer:
    """Make the authorizer that an address names.

    Args:
        address: `module:NAME` of a class, or of a function, that is called with the application.
        app: the application.

    Raises:
        ConfigurationError: there is none, or it is no authorizer.
    """
    module, _, name = address.partition(":")
    try:
        make = attrgetter(name)(importlib.import_module(module))
        found = make(app)
    except Exception as error:  # of any code
        raise ConfigurationError(
            [f"{SETTING}: {address} cannot be made: {type(error).__name__}: {first_line(error)}"]
        ) from error
    if not isinstance(found, Authorizer):
        raise ConfigurationError(
            [
                f"{SETTING}: {address} made {type(found).__name__}, which has no allows(actor, permission, task, arguments)"
            ]
        )
    return found
