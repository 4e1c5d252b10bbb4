"""Tasks for the tests of traces."""

import logging
from collections.abc import Iterator

from opentelemetry.baggage import get_baggage

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, ImmediateTask, RetryPolicy

logger = logging.getLogger(__name__)


class AwayError(ConnectionError):
    """It cannot be pickled, as most errors with arguments of their own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Trace(ImmediateTask):
    """Say what its baggage is; fail so often before."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(first_wait=0.1)

    def run(self, number: int, failures: int = 0) -> int:
        logger.info("baggage of %s: %s", number, get_baggage("tenant"))
        if self.attempt <= failures:
            raise AwayError(7, "cannot reach https://me:hunter2@pay.example")
        return number


class Dies(ImmediateTask):
    """Fail for good."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        raise BusinessError(f"{number}: no account at https://me:hunter2@pay.example")


class Told(ImmediateTask):
    """Is sent after another one."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


class Cut(BatchTask):
    """Four chunks."""

    not_idempotent = "it does nothing"
    chunk_size = 5

    def items(self) -> Iterator[int]:
        yield from range(20)

    def process(self, chunk: list[int]) -> None:
        """Do nothing."""
