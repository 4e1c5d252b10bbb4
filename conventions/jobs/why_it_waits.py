"""Why a job waits, as a sentence for people."""

from conventions.broker.find_message import FoundMessage
from conventions.broker.header_names import UNKNOWN, UNKNOWN_SINCE
from conventions.idempotency.claim_reading import ClaimReading

NO_WORKER = "no worker of this application runs"
CANCELLED = "it is cancelled, and will not run: a worker removes it when its turn comes"


def of_waiting(
    message: FoundMessage, claim: ClaimReading | None, paused: str = "", *, workers: bool, cancelled: bool = False
) -> str:
    """Of a message that is ready, delayed or held.

    Args:
        message: as it was found.
        claim: of its job, where it is known.
        paused: who has paused its queue or its task; empty where nobody has.
        workers: whether any worker lives.
        cancelled: whether it is kept from running.
    """
    if cancelled and message.place != "later":
        return "; ".join(part for part in (CANCELLED, paused, "" if workers else NO_WORKER) if part)
    match message.place:
        case "later":
            return "a later release has written it, and this one cannot read it"
        case "ready" if paused:
            return paused
        case "ready":
            place = _place(message.before, message.queue)
            return place if workers else f"{place}, and {NO_WORKER}"
        case "delayed":
            return _of_delayed(message, claim, paused)
        case _:
            return _of_held(claim)


def _place(before: int, queue: str) -> str:
    match before:
        case 0:
            return f"it is the next one of the queue {queue}"
        case 1:
            return f"one message of the queue {queue} comes before it"
        case _:
            return f"{before:,} messages of the queue {queue} come before it"


def _of_delayed(message: FoundMessage, claim: ClaimReading | None, paused: str) -> str:
    if message.why == "pause":
        return paused or "its task was paused, and is resumed: a worker takes it soon"
    if message.why == "rate":
        return "the rate limit of its task holds it back"
    if message.why == "key":
        return f"its idempotency key is in use{_by(claim)}"
    if message.headers.get(UNKNOWN):
        return (
            f"no worker that has read it knows the task {message.headers.get('task')}, since "
            f"{message.headers.get(UNKNOWN_SINCE)}"
        )
    return "it is not due yet"


def _of_held(claim: ClaimReading | None) -> str:
    if claim is not None and claim.state == "running" and claim.lapsed:
        return "the worker that ran it is silent, and its lease is over: another worker takes it"
    if claim is not None and claim.state == "granted":
        return "it is in a process of a worker, behind other short jobs"
    return "a worker has read it, and has no free process for it yet"


def _by(claim: ClaimReading | None) -> str:
    return f" by the message {claim.message_id}" if claim is not None and claim.message_id else ""
