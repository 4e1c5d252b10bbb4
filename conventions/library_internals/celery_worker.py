"""What Celery does not document, and only its workers use."""

from collections.abc import Callable
from concurrent.futures import Future
from logging import Logger
from signal import valid_signals
from typing import Any

from celery import bootsteps
from celery.apps import worker as program
from celery.concurrency import base, prefork, solo
from celery.platforms import signals
from celery.worker import control, request, strategy

create_request_class: Callable[..., Any] = request.create_request_cls  # one for each task and consumer
default_strategy: Callable[..., Callable[..., Any]] = strategy.default  # what handles each message of a task
receipt_logger: Logger = strategy.logger

control_commands: dict[str, Callable[..., Any]] = control.Panel.data  # of remote control, by name
refusal: Callable[[str], Any] = control.nok  # the answer of one that is not done

say: Callable[..., None] = program.safe_say  # writes a line, also from a handler of a signal


def is_solo(pool: Any) -> bool:
    """Whether jobs run in the worker's main thread."""
    return isinstance(pool, solo.TaskPool)


def can_signal(pool: Any) -> bool:
    """Whether a pool can end one job by a signal; threads cannot."""
    return getattr(pool.terminate_job, "__func__", None) is not base.BasePool.terminate_job


def signal_number(name: Any) -> int:
    """The number of a signal, by number or name; `None`: of the one that ends a process.

    Raises:
        ValueError, TypeError, AttributeError: there is no such signal.
    """
    number: int = signals.signum(name or "TERM")
    if number not in valid_signals():
        raise ValueError(f"{number} is no signal of this system")
    return number


def has_processes(pool_class: type[Any]) -> bool:
    """Whether a class of pools has processes of its own."""
    return issubclass(pool_class, prefork.TaskPool)


def future_of(result: Any) -> Future[Any] | None:
    """What a pool of threads has for a job that it was given; other pools have none."""
    found: Future[Any] | None = getattr(result, "f", None)
    return found


def limit_anew(consumer: Any, before: Any, bucket: Any) -> None:
    """Let the jobs that Celery holds back for the limit of before wait for another one, or begin where there is none.

    Args:
        consumer: Celery's, of this worker.
        before: the bucket of the limit of before.
        bucket: that of the present one, or `None`.
    """
    waiting = list(before.contents)
    before.clear_pending()
    for held, tokens in waiting:
        if bucket:
            consumer._limit_task(held, bucket, tokens)  # noqa: SLF001
        else:
            consumer._limit_move_to_pool(held)  # noqa: SLF001


def has_terminated(worker: Any) -> bool:
    """Whether a worker has ended all its parts."""
    return bool(worker.blueprint.state == bootsteps.TERMINATE)


def is_warm_handler(handler: Any) -> bool:
    """Whether a handler of a signal is Celery's, which lets running jobs finish."""
    return callable(handler) and getattr(handler, "__name__", "") == "worker_Warm"
