"""A dead letter of a sealed job: its message is kept as it was sealed, and its arguments are not kept beside it (R21)."""

import json
from collections.abc import Mapping
from typing import Any

from conventions.broker.codec import in_base64, json_of_kombu
from conventions.core.errors import CannotOpen, LetterNotEditable
from conventions.dead_letters import letters as dead_letters
from conventions.execution.application import Application
from conventions.sealing.kept_message import check_owner, sealed_in
from conventions.sealing.payload_keys import cannot_open
from conventions.sealing.sealed_text import seal_text
from conventions.sealing.shown_to_people import is_closed
from conventions.storage.tables import DeadLetterRow


def is_sealed(letter: DeadLetterRow) -> bool:
    """Whether its message is sealed."""
    return sealed_in(dead_letters.message(letter)) is not None


def is_hidden(letter: DeadLetterRow | None) -> bool:
    """Whether who reads now is not to see its values: it is sealed, and was not revealed."""
    return letter is not None and is_closed() and is_sealed(letter)


def refuse_of_another(app: Application, letter: DeadLetterRow) -> None:
    """Refuse a sealed letter whose message is that of another job: whoever writes into SQL may have put it there. Raises: CannotOpen."""
    message = dead_letters.message(letter)
    sealed = sealed_in(message)
    if sealed is None or message is None:
        return
    headers = message.get("headers") or {}
    name = headers.get("task")  # which may be an old one
    if headers.get("id") != letter.id or letter.task not in (name, getattr(app.tasks.get(name), "name", None)):
        raise cannot_open(f"{letter.id}: what it holds is of another message")
    check_owner(sealed, name, letter.id)


def arguments_of(app: Application, letter: DeadLetterRow) -> dict[str, Any]:
    """The arguments of a letter by name, for who edits it. Raises: LetterNotEditable: they are sealed, and cannot be opened here, or have no names."""
    sealed = sealed_in(dead_letters.message(letter))
    if sealed is None:
        return dict(letter.arguments)
    try:
        refuse_of_another(app, letter)
        args, kwargs, _ = sealed.opened(app.payload_keys)
    except CannotOpen as error:
        raise LetterNotEditable(f"{letter.id}: {error}") from error
    if args:
        raise LetterNotEditable(f"{letter.id}: its arguments have no names; send the job anew")
    return kwargs


def with_arguments(
    app: Application, message: Mapping[str, Any], arguments: Mapping[str, Any], headers: Mapping[str, Any]
) -> dict[str, Any]:
    """A sealed message with other arguments, and with these headers added. Raises: CannotOpen."""
    sealed, keys = sealed_in(message), app.payload_keys
    if sealed is None or keys is None:
        raise cannot_open("it is sealed, and there are no CONVENTIONS_PAYLOAD_KEYS here")
    options = sealed.opened(keys).options
    body = keys.seal(json_of_kombu([[], dict(arguments), options]).encode(), sealed.bound_to)
    return {**message, "body": in_base64(body), "headers": {**message["headers"], **headers}}


def for_audit(app: Application, letter: DeadLetterRow, what: str, arguments: Mapping[str, Any]) -> Any:
    """The arguments as the audit keeps them; `what`: before or after an edit."""
    keys = app.payload_keys
    if not is_sealed(letter) or keys is None:
        return dict(arguments)
    return seal_text(keys, json.dumps(dict(arguments)), f"{what} an edit", letter.id)
