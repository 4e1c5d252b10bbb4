"""`Mate`: one message of a group, as its process has it."""

from binascii import a2b_base64
from typing import Any

from celery.app.task import Context

from conventions.broker import Delivery, Held
from conventions.job import TOKEN, Job
from conventions.reading import DELIVERY, decoded, raw_message

CELERYS = frozenset([*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"])

type Handed = tuple[str, str, dict[str, Any], dict[str, Any]] | tuple[tuple[Any, ...]]
"""A message as the main process hands it over: task, id, request with its arguments, and what else was in its body; or only
its delivery, as it came, of a plain message."""


class Mate:
    """One message of a group.

    Attributes:
        token: of its claim, also when it has ended; empty until that was asked for.
        counted: its start was counted, or is by whoever runs it.
    """

    __slots__ = ("_handed", "args", "counted", "id", "job", "kwargs", "request", "task", "token")

    id: str
    task: Any
    request: dict[str, Any]
    args: Any
    kwargs: Any

    def __init__(self, handed: Handed) -> None:
        self._handed = handed
        self.job: Job | None = None
        self.counted = True
        self.token = ""

    def read(self, app: Any, hostname: str) -> None:
        """Make of it what its task needs: of all of a group, the first would wait for that."""
        handed = self._handed
        task, self.id, request, embed = handed if len(handed) == 4 else _read(Delivery(*handed[0]), hostname)
        self.task, self.request = app.tasks[task], request
        self.args, self.kwargs = request["args"], request["kwargs"]
        request.update(embed, is_eager=False)
        # As `Context` would find them, but for a set that it makes anew for each message.
        request["headers"] = {name: value for name, value in request.items() if name not in CELERYS} or None

    def prepare(self, job: Job) -> None:
        """It is this job."""
        self.job, self.token = job, job.token

    def forget(self) -> None:
        """It has ended: the next ones may have its place in memory, while that is near to the processor."""
        self.request, self.args, self.kwargs, self.job = {}, (), {}, None

    @property
    def held(self) -> Held:
        """The message, and its claim where that was asked for."""
        claim, token = (self.job.claim.claim, self.job.token) if self.job is not None else ("", "")
        if len(self._handed) == 1:
            tag, queue, _, receipt, *_ = self._handed[0]
            return Held(tag.decode(), queue, receipt, claim, token)
        delivery = self._handed[2]["properties"][DELIVERY]
        return Held(delivery["tag"], delivery["queue"], delivery["receipt"], claim, token)


def _read(delivery: Delivery, hostname: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """A plain message, as Celery's request has it."""
    message = raw_message(delivery)
    request, properties = message["headers"], message["properties"]
    args, kwargs, embed = decoded(a2b_base64(message["body"]))
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
    return request["task"], request["id"], request, embed
