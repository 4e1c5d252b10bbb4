"""The send of a message that may be a step after a job, whose error nobody hears."""

from collections.abc import Callable
from typing import TypeVar

from conventions.execution.application import may_pass
from conventions.execution.current_job import sends_follow_ups
from conventions.execution.unsent_step import UnsentStep

T = TypeVar("T")


def sent_or_refused(send: Callable[[], T], step: Callable[[], UnsentStep], instead: Callable[[], T]) -> T:
    """Send. A step after a finished job that no broker takes as it is becomes a dead letter.

    Args:
        send: sends; under the same id each time.
        step: says what is sent; asked only for a letter.
        instead: makes what is returned for a letter.

    Raises:
        Exception: whatever `send` raises, where no step is sent, or where another moment may mend it.
    """
    try:
        try:
            return send()
        except Exception as error:
            if not sends_follow_ups() or may_pass(step().app, error):
                raise
            return send()  # a connection that breaks may raise anything, once
    except Exception as error:
        if not sends_follow_ups() or may_pass(step().app, error):
            raise
        step().refuse(error)
    return instead()
