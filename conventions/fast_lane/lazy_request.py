"""`LazyRequest`: the request of a job of a group. At first it has only the attributes that nearly every job needs.

To parse a whole message takes longer than a short job runs. `self.request` looks like Celery's `Context` from the start. It
becomes one when somebody asks for an attribute that it does not have yet.
"""

import threading
from typing import Any

from celery.app.task import Context

from conventions.broker.codec import bytes_of, checked_body, headers_in, parsed, with_delivery
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import SIGNATURE, TOKEN
from conventions.broker.message_form import drop_taken
from conventions.broker.signature import without_unsigned
from conventions.execution.run import RUN_BY
from conventions.library_internals.celery import NOT_HEADERS
from conventions.sealing.sealed_body import SealedBody, is_sealed

OURS = ("job", "reporter", RUN_BY)  # attributes that every job asks for, and that are mostly missing


class LazyRequest:
    """One request.

    Args:
        known: the attributes of `self.request` that are known already.
        delivery: the message with its delivery; the other attributes are read from it.
        hostname: the name of the worker.
    """

    __slots__ = ("_delivery", "_hostname", "_whole", "known")

    def __init__(self, known: dict[str, Any], delivery: Delivery, hostname: str) -> None:
        self.known, self._delivery, self._hostname = known, delivery, hostname
        self._whole: dict[str, Any] | None = None

    def whole(self) -> dict[str, Any]:
        """All attributes, in the form that Celery's tracer takes."""
        if self._whole is None:
            self._whole = _read(self._delivery, self._hostname)
        return self._whole | self.known

    def get(self, name: str) -> Any:
        """One attribute; `None` if it is missing."""
        return self.known[name] if name in self.known else self.whole().get(name)

    def context(self) -> Any:
        """The object that `self.request` is while the job runs."""
        return LateContext(self)


class WholeRequest(LazyRequest):
    """A request that the main process has parsed.

    Args:
        whole: all its attributes.
    """

    __slots__ = ()

    def __init__(self, whole: dict[str, Any]) -> None:
        self.known = whole

    def whole(self) -> dict[str, Any]:
        """All attributes."""
        return self.known

    def context(self) -> Context:
        """Celery's own object."""
        return Context(self.known, called_directly=False)


class _Attributes:
    """Has a `__dict__` that `attributes_of` reads, even if a subclass hides it."""


_completing = threading.RLock()
attributes_of = vars(_Attributes)["__dict__"].__get__


class LateContext(_Attributes):
    """Becomes a `Context` when somebody asks for an attribute that it does not have."""

    def __init__(self, late: LazyRequest) -> None:
        attributes_of(self).update(dict.fromkeys(OURS))
        attributes_of(self).update(late.known, _late=late, called_directly=False, is_eager=False)

    def complete(self) -> None:
        """Become a `Context`, and keep what was set on it. Another thread may read it now, and a time limit may interrupt this anywhere."""
        with _completing:
            if type(self) is not LateContext:
                return
            mine = attributes_of(self)
            whole = vars(Context(mine["_late"].whole(), called_directly=False))
            for name, value in whole.items():
                if name not in mine or (name in OURS and mine.get(name) is None):
                    mine[name] = value
            self.__class__ = Context
            for name in ("_late", *(one for one in OURS if mine.get(one) is None)):
                mine.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        LateContext.complete(self)  # by name: another thread may have completed it since this was called
        return getattr(self, name)

    def __repr__(self) -> str:
        LateContext.complete(self)
        return repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        LateContext.complete(self)
        return self.__reduce_ex__(protocol)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # of vars(self.request)
        LateContext.complete(self)
        return vars(self)


def _read(delivery: Delivery, hostname: str) -> dict[str, Any]:
    """The attributes of a plain message, as in Celery's request."""
    message = with_delivery(parsed(delivery.payload), delivery)  # `plain` has checked the whole message
    request, properties = message["headers"], message["properties"]
    if request.get(SIGNATURE):
        request = without_unsigned(request)
    drop_taken(request)
    args, kwargs, embed = _body_of(message, delivery)
    info = properties["delivery_info"]
    request |= {
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "hostname": hostname,
        "delivery_info": {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": info["redelivered"],
        },
        "args": args,
        "kwargs": kwargs,
        TOKEN: delivery.receipt,
    }
    return completed(request, embed)


def _body_of(message: dict[str, Any], delivery: Delivery) -> Any:
    """The parts of its body."""
    if not is_sealed(message["content-type"]):
        return checked_body(message)
    return SealedBody.of(headers_in(delivery.payload), bytes_of(message["body"]))


def completed(request: dict[str, Any], embed: dict[str, Any]) -> dict[str, Any]:
    """A request with the rest of its body, and with `headers` as `Context` computes them. This saves the set that `Context` builds each time."""
    request.update(embed, is_eager=False)
    request["headers"] = {name: value for name, value in request.items() if name not in NOT_HEADERS} or None
    return request
