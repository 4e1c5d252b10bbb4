"""`GroupMember`: one message of a group, in the process that runs it."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from conventions.broker.codec import DELIVERY, delivery_property
from conventions.broker.delivery import Delivery, tag_of
from conventions.broker.header_names import TOKEN
from conventions.broker.redis_broker import HeldMessage
from conventions.broker.simple_message import TOLD
from conventions.core.errors import PayloadError
from conventions.execution.application import Application
from conventions.execution.attempt import Attempt
from conventions.execution.begin import Begun, begin_answered
from conventions.execution.run import RUN_BY, execute
from conventions.execution.runnable_task import RunnableTask
from conventions.execution.settle import Outcomes
from conventions.fast_lane.lazy_request import LazyRequest, WholeRequest, completed
from conventions.fast_lane.traced_task import TracedTask
from conventions.idempotency.claim_answers import Answer
from conventions.sealing.sealed_body import SealedBody

Handed: TypeAlias = (
    tuple[str, str, dict[str, Any], dict[str, Any] | SealedBody]
    | tuple[tuple[Any, ...], str, dict[str, Any] | tuple[bytes, bytes], tuple[Any, ...]]
)
"""A message as the main process hands it over, in one of two forms.

A request: the name of the task, the id, the request with its arguments, and the rest of the body.
A plain message: its delivery, the name of the task, the arguments, and the values of the headers `TOLD`.
In the place of the rest of the body may stand its sealed body, and in that of the arguments of a plain message its two parts."""

NOTHING = WholeRequest({})


@dataclass(slots=True)
class Prepared:
    """Runs a job whose arguments are checked and whose claim is answered already: see `RunBy`.

    Attributes:
        values: the checked arguments.
        fault: what is wrong with the arguments; then `values` is empty.
        answer: the answer to the claim.
        outcomes: records the job if it succeeds.
    """

    job: Attempt
    values: dict[str, Any]
    fault: PayloadError | None
    answer: Answer
    outcomes: Outcomes

    def __call__(self, task: RunnableTask, request: Any, args: Any, kwargs: Any) -> Any:
        """Run the job. Returns its result."""
        return execute(task, request, args, kwargs, begins=self._begin, outcomes=self.outcomes)

    def _begin(self, task: RunnableTask, request: Any, _args: Any, _kwargs: Any) -> Begun:
        return begin_answered(task, request, self.job, values=self.values, fault=self.fault, answer=self.answer)


class GroupMember:
    """One message of a group.

    Attributes:
        token: the token of its claim, also after the job has ended; empty until `read`.
        counted: whether its start is counted, or whoever runs it counts it.
    """

    __slots__ = ("_handed", "args", "counted", "id", "job", "kwargs", "request", "task", "token")

    id: str
    task: TracedTask
    request: LazyRequest
    args: Any
    kwargs: Any

    def __init__(self, handed: Handed) -> None:
        self._handed = handed
        self.job: Attempt | None = None
        self.counted = True
        self.token = ""

    def read(self, app: Application, hostname: str, start: str) -> None:
        """Build the request and the job. Not done for all members at once: the first one would wait. `start`: see `ClaimRequest`."""
        if isinstance(self._handed[0], str):
            name, self.id, request, embed = self._handed
            if isinstance(embed, SealedBody):
                request["args"], request["kwargs"], embed = embed
            self.request = WholeRequest(completed(request, embed))
            self.args, self.kwargs = request["args"], request["kwargs"]
            fields = request
        else:
            parts, name, arguments, told = self._handed
            delivery, self.args, opened = Delivery(*parts), [], {}
            if isinstance(arguments, tuple):
                self.args, arguments, opened = SealedBody(*arguments)
            self.kwargs = arguments
            known = {name: value for name, value in zip(TOLD, told, strict=True) if value is not None} | opened
            known["hostname"], known[TOKEN], known["shadow"] = (
                hostname,
                delivery.receipt,
                None,
            )  # a plain message has no shadow name
            self.request, self.id = LazyRequest(known, delivery, hostname), known["id"]
            fields = known | {"properties": {DELIVERY: delivery_property(delivery)}}
        self.task = app.tasks[name]
        self.job = Attempt.read(self.task, self.kwargs, fields.get, start)
        self.token = self.job.token

    def run_by(self, prepared: Prepared) -> None:
        """Run it with this answer. Without, the job asks for its own claim."""
        self.request.known[RUN_BY] = prepared

    def forget(self) -> None:
        """Drop what only a running job needs. The next jobs can reuse this memory while it is in the processor's cache."""
        self.request, self.args, self.kwargs, self.job = NOTHING, (), {}, None

    @property
    def held(self) -> HeldMessage:
        """The message as it is held in Redis, with the claim if one was asked for."""
        claim, token = (self.job.claim.claim, self.job.token) if self.job is not None else ("", "")
        if isinstance(self._handed[0], str):
            delivery = self._handed[2]["properties"][DELIVERY]
            return HeldMessage(delivery["tag"], delivery["queue"], delivery["receipt"], claim, token)
        tag, queue, _, receipt, *_ = self._handed[0]
        return HeldMessage(tag_of(tag), queue, receipt, claim, token)
