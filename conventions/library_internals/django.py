"""What Django does not document: whose a block of a connection is, what waits for its commit, and whether tests run."""

import sys
from typing import Any


def is_in_testcase(connection: Any) -> bool:
    """Whether the open block is that of Django's `TestCase`, which rolls back what a test writes. `atomic(durable=True)` asks the same."""
    return bool(connection.atomic_blocks) and bool(connection.atomic_blocks[-1]._from_testcase)  # noqa: SLF001


def waits_for_commit(connection: Any, function: Any) -> bool:
    """Whether a function of `on_commit` waits still. It does not where its savepoint was rolled back."""
    return any(function in waiting for waiting in connection.run_on_commit)


def forget_on_commit(connection: Any, function: Any) -> None:
    """Let a function of `on_commit` wait no more."""
    connection.run_on_commit = [waiting for waiting in connection.run_on_commit if function not in waiting]


def tests_run() -> bool:
    """Whether Django's test runner, or pytest-django, has set up its environment."""
    utils: Any = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")  # noqa: SLF001


def manager_of(model: Any) -> Any:
    """By which Django itself looks up a model, such as that of its users. Its name begins with an underscore, and is documented."""
    return model._default_manager  # noqa: SLF001
