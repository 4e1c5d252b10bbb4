"""A task whose requests cannot be given to the pool."""

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.worker.request import Request


class UnreadyRequest(Request):
    """Has an error where Celery gives it to the pool."""

    def revoked(self) -> bool:
        raise ValueError("it cannot be given to the pool")


class Unready(ImmediateTask):
    """Never runs."""

    idempotent_on = EVERY_ARGUMENT
    Request = f"{__name__}:{UnreadyRequest.__name__}"

    def run(self, number: int) -> None:
        """Do nothing."""
