"""How often Python looks for garbage that refers to itself: seldom in a process that runs no code of jobs.

Each look passes all that was made since the last one and waits still, such as messages that were read ahead. An optimisation: see `docs/performance.md`.
"""

import gc

SELDOM = 20_000  # objects more than there were at the last look
USUAL = (
    700,
    2000,
)  # what CPython has, by its release: who has set another number, or turned the collector off, keeps that

_before: tuple[int, int, int] | None = None


def look_seldom() -> None:
    """Look seldom in this process, and in those that it forks."""
    global _before  # noqa: PLW0603  # of the process, as the collector's own threshold
    found = gc.get_threshold()
    if gc.isenabled() and found[0] in USUAL:
        _before = found
        gc.set_threshold(SELDOM, *found[1:])


def look_as_before() -> None:
    """Look as often as before again: in a process of the pool, whose memory is the team's."""
    global _before  # noqa: PLW0603
    if _before is not None and gc.get_threshold()[0] == SELDOM:
        gc.set_threshold(*_before)
    _before = None
