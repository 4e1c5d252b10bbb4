"""What a process says of the job that it runs: to its worker's main process, by its page, and to a soft limit that passes.

A process without a page, as one of a pool of threads, renews the claim itself, from a thread.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from conventions.execution.attempt import Attempt
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.soft_time_limit import soft_limit
from conventions.idempotency.shared_memory import Page

_BY_PAGE = nullcontext()


def begin_job(task: RunnableTask, job: Attempt) -> None:
    """A job is about to ask for its claim, or has it."""
    page = task.app.pages.mine
    if page is not None:
        page.begin(job.claim.claim, job.token, task.hangs_after)


def held(task: RunnableTask, job: Attempt, page: Page | None) -> AbstractContextManager[None]:
    """Within the block the job's claim is renewed; by the main process, where there is a page of this process."""
    if page is not None and page.names_job:
        return _BY_PAGE
    return task.app.lease_keeper.holding(job.claim, task.stall_check())


def end_own_code(task: RunnableTask, request: Any) -> None:
    """The job's own code has ended, or never begins: what follows is to record that, and no limit may end it."""
    if request.is_eager:
        return
    soft_limit.over = request
    page = task.app.pages.mine
    if page is not None:
        page.settle()
