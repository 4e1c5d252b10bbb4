"""`enqueue_in` and `delay_on_commit`: sends that wait for a commit; `SendOptions`: a task with options for them, and for `delay`."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from conventions.outbox.entry import AT_ONCE, Entry, entries_of, entry_of
from conventions.outbox.wake_relay import nudge
from conventions.sending.bulk_sender import refuse_options_of_one
from conventions.sending.enqueue_many import check_mappings, enqueue_many
from conventions.sending.sendable_task import SendableTask

USING = "using"  # the alias of a database of Django's


class SendOptions:
    """What `Task.options(...)` returns.

    Args:
        task: the task.
        options: as `apply_async` takes them; and `using`, an alias of Django's `DATABASES`, for sends on commit.
    """

    def __init__(self, task: SendableTask, options: Mapping[str, Any]) -> None:
        self._task, self._options = task, dict(options)
        self._using = self._options.pop(USING, None)

    def options(self, /, **options: Any) -> "SendOptions":
        """The same with further options."""
        return SendOptions(
            self._task, {**self._options, **({} if self._using is None else {USING: self._using}), **options}
        )

    def apply_async(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send one message now. Raises: as `Task.apply_async`."""
        self._refuse_using("apply_async")
        return self._task.apply_async(args, kwargs, **{**self._options, **options})

    def delay(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send one message now. Raises: as `apply_async`."""
        self._refuse_using("delay")
        return self._task.apply_async(args, kwargs, **self._options)

    def enqueue_many(self, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages now. Raises: as `enqueue_many`."""
        self._refuse_using("enqueue_many")
        return enqueue_many(self._task, arguments, **self._options)

    def enqueue_in(self, session: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Send one message when the session's transaction has committed. Raises: as `Task.enqueue_in`."""
        entry = entry_of(self._task, args, kwargs, self._options)
        self._add(session, [entry])
        return self._task.AsyncResult(entry.id)

    def enqueue_many_in(self, session: Any, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages when the session's transaction has committed. Raises: as `Task.enqueue_in`; then none is added."""
        entries = self._entries(arguments)
        self._add(session, entries)
        return [one.id for one in entries]

    def delay_on_commit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send one message when Django's transaction has committed. Raises: as `Task.delay_on_commit`."""
        entry = entry_of(self._task, args, kwargs, self._options)
        self._insert([entry])
        return self._task.AsyncResult(entry.id)

    def delay_many_on_commit(self, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
        """Send many messages when Django's transaction has committed. Raises: as `Task.delay_on_commit`; then none is added."""
        entries = self._entries(arguments)
        self._insert(entries)
        return [one.id for one in entries]

    def _entries(self, arguments: Iterable[Mapping[str, Any]]) -> list[Entry]:
        refuse_options_of_one(self._task, self._options)
        check_mappings(self._task, arguments)
        return entries_of(self._task, arguments, self._options)

    def _add(self, session: Any, entries: list[Entry]) -> None:
        from conventions.outbox.by_session import add  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        self._refuse_using("enqueue_in")
        add(self._task._application(), session, entries)  # noqa: SLF001  # the same layer

    def _insert(self, entries: list[Entry]) -> None:
        from conventions.django.outbox_rows import insert_rows  # noqa: PLC0415  # only where there is Django

        app = self._task._application()  # noqa: SLF001  # the same layer
        rows = [one._asdict() for one in entries]
        insert_rows(app.database, self._using, rows, AT_ONCE, partial(nudge, app))

    def _refuse_using(self, method: str) -> None:
        if self._using is not None:
            raise TypeError(f"{self._task.name}: using= is for delay_on_commit, and not for {method}; leave it out")


# The methods of a task.


def with_options(task: SendableTask, /, **options: Any) -> SendOptions:
    """The same sends with options: `SendReceipt.options(countdown=60).enqueue_in(session, order_id=7)`.

    Args:
        options: as `apply_async` takes them.
    """
    return SendOptions(task, options)


def enqueue_in(task: SendableTask, session: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Send one message when the transaction of a session has committed; never, if it is rolled back.

    Args:
        session: a `Session` or `AsyncSession` of SQLAlchemy, on the database of our tables.
        args: arguments of `run`.
        kwargs: arguments of `run`, by name.

    Raises:
        TypeError, PayloadError, ValueError: as `apply_async`, when it is called; `TypeError` also for another database.
    """
    return SendOptions(task, {}).enqueue_in(session, *args, **kwargs)


def enqueue_many_in(task: SendableTask, session: Any, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Send one message for each mapping of arguments, as `enqueue_in`. Returns the ids in order. Raises: as `enqueue_in`."""
    return SendOptions(task, {}).enqueue_many_in(session, arguments)


def delay_on_commit(task: SendableTask, /, *args: Any, **kwargs: Any) -> Any:
    """Send one message when Django's transaction has committed; never, if it is rolled back.

    It is a row in that transaction, so a process that is killed after the commit loses nothing. Without an open transaction it is
    committed at once. `options(using="other")` names another alias than `default`.

    Args:
        args: arguments of `run`.
        kwargs: arguments of `run`, by name.

    Raises:
        TypeError, PayloadError, ValueError: as `apply_async`, when it is called; `TypeError` also for another database.
    """
    return SendOptions(task, {}).delay_on_commit(*args, **kwargs)


def delay_many_on_commit(task: SendableTask, /, arguments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Send one message for each mapping of arguments, as `delay_on_commit`. Returns the ids in order. Raises: as `delay_on_commit`."""
    return SendOptions(task, {}).delay_many_on_commit(arguments)
