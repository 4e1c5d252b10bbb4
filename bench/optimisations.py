"""The optimisations of celery-conventions, each with a plain way that does the same. `python -m bench.without` measures without them.

The fast lane has a switch. For the others the plain way is put in their place, in the processes of the bench alone.
Only the standard library is imported here.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

WITHOUT = "BENCH_WITHOUT"


class Optimisation(NamedTuple):
    """One optimisation.

    Args:
        instead: what is done in its place.
        plain: `module:name` of what is replaced, and what makes the plain way of it.
        variables: of the environment, which switch it off.
    """

    instead: str
    plain: Mapping[str, Callable[[Any], Any]] = {}
    variables: Mapping[str, str] = {}


def _always(answer: object) -> Callable[[Any], Any]:
    return lambda _: lambda *_, **__: answer


def _take(_: Any) -> Any:
    return lambda lines: lines._pool.get_connection()  # noqa: SLF001  # what is measured


def _give_back(_: Any) -> Any:
    return lambda lines, connection: lines._pool.release(connection)  # noqa: SLF001  # what is measured


def _whole_context(_: Any) -> Any:
    context = importlib.import_module("celery.app.task").Context
    return lambda request: context(request.whole(), called_directly=False)


def _asked_when_needed(look_ahead: Any) -> Any:
    return lambda claims: None if claims._ready else look_ahead(claims)  # noqa: SLF001  # what is measured


OPTIMISATIONS = {
    "fast_lane": Optimisation(
        "jobs by themselves, each through Celery's steps", variables={"CONVENTIONS_FAST_LANE": "false"}
    ),
    "templates": Optimisation(
        "Celery makes each message", {"conventions.sending.templates:Templates.fit": _always(answer=False)}
    ),
    "ignored_result": Optimisation(
        "Celery's result object for each send",
        {"conventions.app:ignored_result": lambda _: lambda app: app.AsyncResult},
    ),
    "shown_text": Optimisation(
        "Celery's text of the arguments", {"conventions.sending.shown_arguments:_is_small": _always(answer=False)}
    ),
    "polling": Optimisation(
        "a caller sleeps until the answer is there", {"conventions.storage.script_call:Lines.look": _always(None)}
    ),
    "lines": Optimisation(
        "each call takes a connection of redis-py's pool",
        {
            "conventions.storage.script_call:Lines.take": _take,
            "conventions.storage.script_call:Lines.give_back": _give_back,
        },
    ),
    "short_cut": Optimisation(
        "each message of a short task becomes Celery's request",
        {"conventions.fast_lane.short_cut:ShortCut.take": lambda _: lambda _, deliveries: deliveries},
    ),
    "lazy_request": Optimisation(
        "a job of a group has its whole request at once",
        {"conventions.fast_lane.lazy_request:LazyRequest.context": _whole_context},
    ),
    "claim_new": Optimisation(
        "the claims of a group are asked for by the whole script",
        {"conventions.fast_lane.claims_together:short_arguments": _always(None)},
    ),
    "claims_ahead": Optimisation(
        "the next claims of a group are asked for when they are needed",
        {"conventions.fast_lane.lane_claims:LaneClaims.look_ahead": _asked_when_needed},
    ),
    "cork": Optimisation("each outcome wakes the server", {"conventions.storage.script_call:_cork": _always(None)}),
    "rows_together": Optimisation(
        "the relay sends the rows of the outbox one by one",
        {"conventions.outbox.relay:send_together": _always(frozenset())},
    ),
    "freeze": Optimisation("the garbage collector looks at all that was loaded", {"gc:freeze": _always(None)}),
}


ELSEWHERE = frozenset(["rows_together"])  # measured by `bench.orders`: no other bench has an outbox


def leave_out(name: str) -> None:
    """Do without the optimisation of this name, in this process and its children; empty: with all of them."""
    if not name:
        return
    optimisation = OPTIMISATIONS[name]
    os.environ.update(optimisation.variables)
    for place, plain in optimisation.plain.items():
        module, _, path = place.partition(":")
        *owners, attribute = path.split(".")
        owner = reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, attribute, plain(getattr(owner, attribute)))
