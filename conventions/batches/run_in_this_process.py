"""A whole batch in this process, for `apply` and `task_always_eager`: nothing is sent, claimed or kept."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar
from typing import Any

from conventions.batches.batch_summary import BatchSummary
from conventions.batches.chunks_of_items import Items
from conventions.batches.splittable_task import SplittableTask
from conventions.batches.splitting_turn import ChunkMessage, prepared
from conventions.broker.batch_membership import Outcome, finish_id
from conventions.broker.header_names import ACTOR
from conventions.core.errors import BusinessError
from conventions.sending.bulk_sender import Bulk
from conventions.sending.sendable_task import SendableTask

SUMMARY_HERE: ContextVar[BatchSummary] = ContextVar("summary_here")
"""The summary for a `finish` that runs in this process: an eager batch is not in Redis."""

_ENDED = "eager_chunks"  # a request header: the outcomes of the chunks that ran before a retry


def run_here(task: SplittableTask, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run a whole batch in this process, for `apply` and `task_always_eager`.

    Each chunk, and then the finish, is a job of its own as in a worker, with its retries (without waits) and its
    transaction. Nothing is sent, claimed or kept. A failed chunk is in the summary, but is no dead letter.

    Raises:
        BusinessError: the finish has failed.
    """
    request, chunk_task = task.request, task.chunk_task.registered
    ended: dict[int, tuple[Outcome, Any]] = (request.headers or {}).get(_ENDED) or {}
    request.headers = dict(request.headers or {}) | {_ENDED: ended}
    headers = {ACTOR: task.actor}
    payload = task.arguments.bind((), arguments)
    sizes: list[int] = []
    with closing(Items(task, arguments)) as items, Bulk(chunk_task, {}) as bulk:
        for index, chunk in enumerate(items.chunks()):
            one = prepared(
                bulk, ChunkMessage(request.id, index, None, chunk.items, payload)
            )  # the same checks as when sent
            sizes.append(len(chunk.items))
            if index not in ended:
                ended[index] = _outcome_here(chunk_task, one.payload, one.id, headers)
    summary = _summary_here(task, sizes, ended)
    token = SUMMARY_HERE.set(summary)
    try:
        outcome, found = _outcome_here(
            task.finish_task.registered,
            {"batch_id": request.id, "arguments": payload},
            finish_id(request.id),
            headers,
        )
    finally:
        SUMMARY_HERE.reset(token)
    if outcome == "dead":
        raise BusinessError(f"{task.name}: its finish has failed: {type(found).__name__}: {found}") from found
    return {"batch": request.id, "chunks": len(sizes), "total": summary.total}


def _outcome_here(
    task: SendableTask, kwargs: Mapping[str, Any], task_id: str, headers: Mapping[str, Any]
) -> tuple[Outcome, Any]:
    try:
        ended = task.apply(kwargs=dict(kwargs), task_id=task_id, headers=dict(headers), throw=False)
    except Exception as error:  # noqa: BLE001  # raised by a retry if `task_eager_propagates` is set
        return "dead", error
    return {"SUCCESS": "done", "FAILURE": "dead"}.get(ended.state, "cancelled"), ended.result  # type: ignore[return-value]  # only these words occur


def _summary_here(task: SplittableTask, sizes: Sequence[int], ended: Mapping[int, tuple[Outcome, Any]]) -> BatchSummary:
    outcomes = [ended[index][0] for index in range(len(sizes))]
    done = sum(size for size, outcome in zip(sizes, outcomes, strict=True) if outcome == "done")
    returned = [ended[index][1] for index, outcome in enumerate(outcomes) if outcome == "done"]
    return BatchSummary(
        task.request.id,
        task.name,
        "running",
        sum(sizes),
        done,
        sum(sizes) - done,
        len(sizes),
        failed_chunks=[index for index, outcome in enumerate(outcomes) if outcome == "dead"],
        cancelled_chunks=[index for index, outcome in enumerate(outcomes) if outcome == "cancelled"],
        returns=[one for one in returned if one is not None],
        actor=task.actor,
        created_at=time.time(),
        ended_chunks=len(sizes),
    )
