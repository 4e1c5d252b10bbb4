"""Edit a dead letter: correct its arguments before it is sent again (R18)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conventions.broker.codec import UnreadableBody, read_body, with_arguments
from conventions.broker.header_names import EDITED_BY, FINGERPRINT, FOUND_BY, KEY, OTHER_NAMES, PLANNED_AT
from conventions.core.canonical_json import digest
from conventions.core.error_text import cut
from conventions.core.errors import LetterNotEditable
from conventions.core.sealed_mark import SHOWN
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import sealed_letters
from conventions.dead_letters.sealed_letters import arguments_of, for_audit, is_hidden, is_sealed
from conventions.declare.arguments_as_json import Arguments
from conventions.execution.application import Application
from conventions.execution.job_names import name_headers
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.sealing.kept_message import sealed_in
from conventions.sending.sendable_task import SendableTask
from conventions.sending.shown_arguments import shown_arguments
from conventions.storage.tables import DeadLetterRow

COMPARED = "dead-letters edit without a difference"  # of a sealed letter


@dataclass(frozen=True, slots=True)
class Change:
    """The value of one argument, before and after."""

    name: str
    before: Any
    after: Any


def edit(
    app: Application,
    id: str,  # noqa: A002  # the word of the glossary
    arguments: Mapping[str, Any],
    actor: str,
    reason: str | None = None,
    *,
    seen: str | None = None,
) -> list[Change]:
    """Give a dead letter other arguments, checked like those of a send. The audit keeps the former ones.

    The message keeps its id. It also keeps its idempotency key, unless the key was made from an argument that changes
    now: a job for
    another user must not count as the job of the first one.

    Args:
        app: the application, with its tasks loaded.
        id: of the letter.
        arguments: all of them, by name, as JSON or as Python objects.
        actor: who edits.
        reason: why.
        seen: `version` of the arguments that the editor started from; `None` skips this check.

    Returns:
        The changed arguments. Those of a sealed letter have no values where a person reads them to whom nothing was revealed.

    Raises:
        LetterNotEditable: there is no such letter, it is not dead, its message cannot be read, its task is not known
            here, or somebody else has changed it since.
        TypeError: an argument is missing, or there is one too many.
        PayloadError: an argument has the wrong type, JSON cannot hold it, or the payload is too large.
    """
    with app.database.session() as session:
        letter = _existing(session.get(DeadLetterRow, id, with_for_update=True), id)
        task = editable(app, letter, id)
        before = arguments_of(app, letter)
        if seen is not None and seen != version(before):
            raise LetterNotEditable(f"{id}: somebody has changed its arguments since you looked; look again")
        after = dict(task.checked((), arguments))
        changes = differences(before, after)
        if changes:
            told = [for_audit(app, letter, what, one) for what, one in (("before", before), ("after", after))]
            _rewrite(app, task, letter, before, after, actor=actor)
            audit.record(session, AuditEntry(actor, "dead-letters edit", id, reason, *told))
        elif is_sealed(letter):  # who has typed what is there knows it now
            audit.record(session, AuditEntry(actor, COMPARED, id, reason))
        hides = is_hidden(letter)
    return [Change(one.name, SHOWN, SHOWN) for one in changes] if hides else changes


def value_of(arguments: Arguments, name: str, text: str) -> Any:
    """The value of an argument that somebody has typed: JSON, or a text without quotes if the argument takes a text.

    Raises:
        ValueError: it is neither; says what to write.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text[:1] in _BEGINS_JSON:
            raise ValueError(f"{name}: it begins as JSON, and is none ({error})") from error
        if fault := _fault(arguments, name, text):
            raise ValueError(f"{name}: {fault}; write JSON, or a text where {name} takes one") from error
        return text
    takes_text = text[:1] not in _BEGINS_JSON and _fault(arguments, name, text) is None
    return text if takes_text and _fault(arguments, name, value) is not None else value


def dropped(arguments: Arguments, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a letter that its task no longer takes."""
    return {name: value for name, value in values.items() if name not in arguments.names}


_BEGINS_JSON = ('"', "{", "[")


def _fault(arguments: Arguments, name: str, value: Any) -> str | None:
    return arguments.faults({name: value}).get(name)


def version(arguments: Mapping[str, Any]) -> str:
    """A hash of arguments. It changes when somebody edits them."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()  # works with half characters, too


def _existing(letter: DeadLetterRow | None, id: str) -> DeadLetterRow:  # noqa: A002  # the word of the glossary
    if letter is None:
        raise LetterNotEditable(f"there is no dead letter {id}")
    return letter


def editable(app: Application, letter: DeadLetterRow | None, id: str) -> SendableTask:  # noqa: A002  # the word of the glossary
    """The task of a letter, if the letter can be edited. Raises: LetterNotEditable."""
    letter = _existing(letter, id)
    if letter.state != "dead":
        raise LetterNotEditable(f"{id} is {letter.state}; only a dead letter can be edited")
    task: SendableTask | None = app.tasks.get(letter.task)
    if task is None or not hasattr(task, "checked"):
        raise LetterNotEditable(
            f"{id}: its task {letter.task!r} is not registered here, so nothing could check its arguments"
        )
    message = dead_letters.message(letter)
    if sealed_in(message) is not None:
        arguments_of(app, letter)
        return task
    try:
        if message is not None:
            read_body(message)
    except UnreadableBody:
        raise LetterNotEditable(f"{id}: its data is not a message of a task; send the job anew") from None
    if not isinstance(letter.arguments, dict):
        raise LetterNotEditable(f"{id}: its arguments have no names; send the job anew")
    return task


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The changed arguments, in their order. A missing one counts as `None`."""
    names = dict.fromkeys([*before, *after])
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _rewrite(
    app: Application,
    task: SendableTask,
    letter: DeadLetterRow,
    before: Mapping[str, Any],
    after: dict[str, Any],
    *,
    actor: str,
) -> None:
    headers = {
        **_names(task, letter, before, after),
        EDITED_BY: cut(actor),
    }  # who answers for them, see `permission_check`
    sealed = is_sealed(letter)
    letter.arguments = {} if sealed else after
    letter.headers = letter.headers | headers
    message = dead_letters.message(letter)
    if message is None:
        return
    if sealed:
        letter.message = json.dumps(sealed_letters.with_arguments(app, message, after, headers))
    else:
        shown = shown_arguments(task, after, {}, letter.headers)
        letter.message = json.dumps(with_arguments(message, after, headers | shown))


def _names(
    task: SendableTask, letter: DeadLetterRow, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """The headers that name the job now. A key that was given by hand stays."""
    planned = letter.headers.get(PLANNED_AT)
    then, now = (
        name_headers(task, one, letter.id, key=None, planned=planned, fingerprint=digest(one))
        for one in (before, after)
    )
    made = {then[KEY], *(then.get(OTHER_NAMES) or ())[:1]}  # of the arguments
    kept = now if letter.headers.get(KEY) in made else {FINGERPRINT: now[FINGERPRINT]}
    return kept | ({FOUND_BY: now[FOUND_BY]} if FOUND_BY in now else {})
