"""How many names one scrape has, one by one: what is beyond that is summed under `others`, so that many queue names do not make a scrape endless."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from conventions.metrics.event_sums import added
from conventions.metrics.series import Series

MOST = 200  # names of one kind: pairs of a task and a queue, queues, tasks, schedules
OTHERS = "others"


def most_of(names: Iterable[str], weight: Callable[[str], Any]) -> tuple[list[str], list[str]]:
    """The names with the most weight, `MOST` of them, and the rest; each in their order. Where there are no more, there is no rest.

    For values that may go down. A rest never leaves `OTHERS` among the first: two series of one name are no scrape.
    """
    every = sorted(names)
    if len(every) <= MOST:
        return every, []
    ranked = sorted((one for one in every if one != OTHERS), key=weight, reverse=True)
    named = set(ranked[:MOST])
    return [one for one in every if one in named], [one for one in every if one not in named]


def most_letters(letters: Mapping[Series, int]) -> tuple[dict[Series, int], int]:
    """The pairs with the most letters, and the sum of the others; and how many these are."""
    if len(letters) <= MOST:
        return dict(sorted(letters.items())), 0
    own = Series(OTHERS, OTHERS)
    ranked = sorted((one for one in letters if one != own), key=lambda one: (-letters[one], one))
    named = {one: letters[one] for one in sorted(ranked[:MOST])}
    return named | {own: sum(letters.values()) - sum(named.values())}, len(letters) - len(named)


def stable_totals(
    known: Sequence[Series], totals: Mapping[Series, Mapping[str, int]]
) -> tuple[dict[Series, Mapping[str, int]], int]:
    """The counts of each pair that is named, and the sums of the others; and how many these are.

    Which are named must not change: a counter that begins with what was counted before looks as if all of it were new, and so do sums that
    another pair joins. So it is not who has the most, but those that were counted first: of registered tasks, and of all. A registered task of
    which nothing was counted is named while there is room, and adds nothing where there is none.

    A deploy that registers more tasks changes nothing. One that takes tasks away may, where more than 200 pairs were counted: the counts of such
    a task join the others, unless its pair is among the first 200 of all; and of more than 200 registered tasks the next one leaves the others.

    Args:
        known: the pairs of registered tasks.
        totals: by pair, in the order in which they were first counted.
    """
    every: dict[Series, Mapping[str, int]] = {one: {} for one in known} | dict(totals)
    registered = {*known}
    first = [*(one for one in totals if one in registered), *(one for one in known if one not in totals)]
    named = {*first[:MOST], *islice(totals, MOST)}
    if len(named) == len(every):
        return every, 0
    own = Series(OTHERS, OTHERS)
    named.discard(own)
    rest = [counts for one, counts in every.items() if one not in named]
    return {one: counts for one, counts in every.items() if one in named} | {own: added(rest)}, len(rest)
