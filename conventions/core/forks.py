"""What an object does when its process forks, and how a process ends that a job has forked."""

import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

logger = logging.getLogger(__name__)

FLUSH_WITHIN = 1.0  # seconds


def call_in_child(method: Callable[[], None]) -> None:
    """Call a method in every process that forks from this one, as long as its object lives."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(after_in_child=lambda: (call := found()) and call())


def call_before_fork(method: Callable[[], None]) -> None:
    """Call a method in the parent before each fork, as long as its object lives."""
    found = weakref.WeakMethod(method)
    os.register_at_fork(before=lambda: (call := found()) and call())


def end_forked(error: BaseException | None) -> NoReturn:
    """End this process, which a job has forked. Everything else in it belongs to the parent.

    Output that the job has written to files is flushed. The `atexit` functions do not run, since they belong to the parent. No
    other thread is waited for.

    Args:
        error: the error that ended the job's code; `None` when it ended normally.
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
            traceback.clear_frames(error.__traceback__)  # this closes files
        # Another thread of the parent may have been writing when it forked: its lock is held here for good.
        flush = threading.Thread(target=_flush, daemon=True)
        flush.start()
        flush.join(FLUSH_WITHIN)
    finally:
        os._exit(status)  # whatever happens, this process must not go on


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def end_if_forked(process: int, error: BaseException | None) -> None:
    """End this process if it is not `process`, so a job has forked it."""
    if os.getpid() != process:
        end_forked(error)
