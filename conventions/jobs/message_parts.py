"""What a job is made of, as far as its message is kept: its arguments, what it belongs to, and what comes before and after it.

The message is kept while the job waits or runs in Redis, and while it is a dead letter. Of a job that has ended well nothing keeps it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from conventions.broker.batch_membership import Member
from conventions.broker.codec import Body, UnreadableBody
from conventions.broker.header_names import BATCH
from conventions.core.errors import CannotOpen
from conventions.core.value_bounds import is_text
from conventions.execution.application import Application
from conventions.jobs.gather_facts import WITHIN
from conventions.sealing.kept_message import check_owner, open_body, sealed_in
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.shown_to_people import is_closed

if TYPE_CHECKING:
    from conventions.storage.tables import DeadLetterRow

MOST_STEPS = 20


class Step(NamedTuple):
    """A job that follows this one. `id`: of its message; empty where it has none yet."""

    task: str
    id: str


@dataclass(frozen=True, slots=True)
class MessageParts:
    """Parts of a message.

    Attributes:
        arguments: by name; `None`: they cannot be read, or are sealed.
        parent: the id of the job that sent it; empty: none did.
        root: the id of the first job of all; empty where that is this one.
        batch: the id of the batch of which it is a chunk; empty: of none.
        following: what is sent once it has succeeded, in this order, at most `MOST_STEPS`.
        sealed: whether it is sealed; then arguments and what follows are known to whom they are revealed.
    """

    arguments: Mapping[str, Any] | None = None
    parent: str = ""
    root: str = ""
    batch: str = ""
    following: tuple[Step, ...] = ()
    sealed: bool = False


def parts_of(app: Application, message_id: str, *, sql: bool = True) -> MessageParts | None:
    """Those of a job whose message is kept: in the broker, or in its dead letter. `None`: it is kept nowhere.

    Args:
        app: the application.
        message_id: of the job.
        sql: whether dead letters are asked.

    Raises:
        RedisError, SQLAlchemyError.
    """
    found = of_message(app, message_id)
    if found is not None or not sql or not app.database.is_there:
        return found
    from conventions.dead_letters import letters as dead_letters  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    with app.database.session(read_only=True, within=WITHIN) as session:
        letter = dead_letters.get(session, message_id)
        return None if letter is None else of_letter(letter, _keys(app))


def of_message(app: Application, message_id: str) -> MessageParts | None:
    """Those of a message in the broker; `None`: it is not there, or this broker shows no single messages. Raises: RedisError."""
    found = app.port.find(message_id)
    if found is None or found.place == "later":
        return None
    try:
        message = json.loads(found.payload)
    except (ValueError, RecursionError):
        message = None
    return _parts(message_id, found.headers, *_body_of(message, _keys(app), message_id))


def of_letter(letter: "DeadLetterRow", keys: PayloadKeys | None = None) -> MessageParts:
    """Those of a dead letter; `keys`: with which it is opened, where it is sealed."""
    from conventions.dead_letters import letters as dead_letters  # noqa: PLC0415  # the same

    message = dead_letters.message(letter)
    headers = message.get("headers") if isinstance(message, dict) else None
    found = _parts(
        letter.id, headers if isinstance(headers, dict) else letter.headers, *_body_of(message, keys, letter.id)
    )
    if found.sealed:
        return found
    return replace(found, arguments=letter.arguments if isinstance(letter.arguments, dict) else None)


def _keys(app: Application) -> PayloadKeys | None:
    return None if is_closed() else app.payload_keys


def _body_of(message: Any, keys: PayloadKeys | None, message_id: str) -> tuple[Body | None, bool]:
    """The body, where it can be read and may be shown, and whether it is sealed. One that was put in the place of another is not opened."""
    known = message if isinstance(message, dict) else {}
    sealed = sealed_in(known)
    try:
        if sealed is not None:
            check_owner(sealed, (known.get("headers") or {}).get("task"), message_id)
        return open_body(keys, known), sealed is not None
    except (UnreadableBody, CannotOpen):
        return None, sealed is not None


def _parts(message_id: str, headers: Mapping[str, Any], body: Body | None, is_sealed: bool) -> MessageParts:
    member = Member.read(headers.get(BATCH))
    root = _text(headers.get("root_id"))
    return MessageParts(
        arguments=None if body is None else body.kwargs,
        parent=_text(headers.get("parent_id")),
        root="" if root == message_id else root,
        batch="" if member is None else member.batch_id,
        following=() if body is None else tuple(_steps(body.options))[:MOST_STEPS],
        sealed=is_sealed,
    )


def _steps(options: Mapping[str, Any]) -> Iterator[Step]:
    chain = options.get("chain")
    for one in reversed(chain) if isinstance(chain, list) else ():
        yield from _step(one)
    for one in options.get("callbacks") or ():
        yield from _step(one)
    yield from _step(options.get("chord"))


def _step(signature: Any) -> Iterator[Step]:
    if not isinstance(signature, Mapping):
        return
    options = signature.get("options")
    yield Step(_text(signature.get("task")), _text(options.get("task_id")) if isinstance(options, Mapping) else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) and is_text(value) else ""
