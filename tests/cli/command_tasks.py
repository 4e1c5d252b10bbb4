"""The tasks that the tests of the sub-commands send and redrive; no worker runs them."""

from collections.abc import Iterator
from datetime import date

from conventions import BatchTask, ImmediateTask, RetryPolicy


class Send(ImmediateTask):
    """Send one mail to one user a day."""

    queue_name = "mail"
    idempotent_on = ("user_id", "day")

    def run(self, user_id: int, day: date) -> None: ...


class Named(ImmediateTask):
    """Do nothing with one number."""

    idempotent_on = ("番号",)

    def run(self, 番号: int) -> None: ...  # noqa: N803, PLC2401  # such names exist


class Remark(ImmediateTask):
    """Note a remark; it took a colour once."""

    aliases = ("notes.Named",)  # the last part of it is that of the task above
    idempotent_on = ("user_id",)

    def run(self, user_id: int, text: str, tags: list[str] | None = None, day: date | None = None) -> None: ...


class Charge(ImmediateTask):
    """Charge one order, by rules of its own."""

    aliases = ("old.charge",)
    not_idempotent = "nothing happens"
    retry_policy = RetryPolicy(attempts=2, first_wait=10, max_wait=10, never=(LookupError,))

    def run(self, order_id: int) -> None: ...

    def should_retry(self, error: Exception, attempts_made: int) -> bool:
        """Never after a type error."""
        return not isinstance(error, TypeError) and super().should_retry(error, attempts_made)


class Import(BatchTask):
    """Import lines."""

    idempotent_on = ("path",)
    chunk_size = 2

    def items(self, path: str) -> Iterator[str]:
        yield path

    def process(self, chunk: list[str], path: str) -> None: ...
