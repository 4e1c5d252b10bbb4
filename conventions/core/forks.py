"""What an object does when its process is forked; how a process ends that a job has forked."""

import logging
import os
import sys
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

logger = logging.getLogger(__name__)


def call_in_child(method: Callable[[], None]) -> None:
    """Call a method of an object in each process that is forked from now on, as long as the object is there."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(after_in_child=lambda: (call := found()) and call())


def call_before_fork(method: Callable[[], None]) -> None:
    """The same, in the parent, before each fork."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(before=lambda: (call := found()) and call())


def end_forked(error: BaseException | None) -> NoReturn:
    """End this process, which a job has forked: all else here is its parent's.

    What the job has left in files is written; nothing is done that was registered for the end of a program (`atexit`),
    since that, too, is the parent's, and no other thread is waited for.

    Args:
        error: what it has raised; `None`: it has come to its end.
    """
    status = 1
    try:
        if error is None or (isinstance(error, SystemExit) and error.code is None):
            status = 0
        elif isinstance(error, SystemExit) and isinstance(error.code, int):
            status = error.code & 0xFF
        else:
            logger.error("a process that a job has forked ends", exc_info=error)
        if error is not None:
            traceback.clear_frames(error.__traceback__)  # by which files are closed
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    finally:
        os._exit(status)  # whatever happens, this process must not go on


def end_if_forked(process: int, error: BaseException | None) -> None:
    """End this process where it is not the one that it was."""
    if os.getpid() != process:
        end_forked(error)
