"""`Outgoing`: the last step of a send. A channel seals and signs each message of a task with it, so no way to send goes past."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from conventions.broker.codec import CONTENT_TYPE, FORM, SEALED_FORM, SEALED_TYPE
from conventions.broker.header_names import SEALED, SIGNATURE
from conventions.broker.signature import SignatureForm, Signatures, SignedText
from conventions.core.errors import CannotSeal
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_body import CONTENT, NOTHING_FOLLOWS, STEPS, bound_to

_NOTHING = json.dumps(dict.fromkeys(STEPS))  # how Celery writes that nothing follows
_ALONE = f", {_NOTHING}]".encode()


class Parts(NamedTuple):
    """The parts of a message that a channel writes.

    Attributes:
        same: of a sealed one, what two messages that hold the same have in common; else empty: their body tells.
    """

    headers: dict[str, Any]
    content_type: Any
    content_encoding: Any
    body: bytes
    same: str = ""


class Outgoing:
    """Seals and signs the messages of one application.

    Args:
        signatures: `None`: nobody signs.
        keys: `None`: nothing can be sealed.
    """

    def __init__(self, signatures: Signatures | None, keys: PayloadKeys | None) -> None:
        self._signatures, self._keys = signatures, keys

    def finished(self, message: Parts) -> Parts:
        """A message as it goes out. One that was signed goes on as it is. Raises: CannotSeal."""
        headers, content_type, encoding, body, _ = message
        if SIGNATURE in headers or content_type == SEALED_TYPE:
            return message
        form = self.like(headers, content_type, encoding, body)
        return form.finished({}, body)

    def like(self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes) -> "OutgoingForm":
        """What finishes messages like one: of the same task, with the same options, steps and names of the caller's headers. Raises: CannotSeal."""
        found, keys = dict(headers), None
        if SEALED in headers:
            keys = self._sealing(headers, content_type)
            found |= {SEALED: _told(body), FORM: SEALED_FORM}  # releases before this one leave it in its queue
            content_type, content_encoding = CONTENT
        if self._signatures is not None:
            found = self._signatures.with_names(found)
        text = SignedText(found, content_type, content_encoding)
        signs = None if self._signatures is None else self._signatures.signing(text)
        return OutgoingForm(found, (content_type, content_encoding), text, signs, keys)

    def _sealing(self, headers: Mapping[str, Any], content_type: Any) -> PayloadKeys:
        if self._keys is None:
            raise CannotSeal(
                f"{headers.get('task')}: its messages are sealed, and this process has no CONVENTIONS_PAYLOAD_KEYS: set them as the workers have them"
            )
        if content_type != CONTENT_TYPE:
            raise CannotSeal(f"{headers.get('task')}: its messages are sealed, and only JSON is; leave serializer out")
        return self._keys


class OutgoingForm:
    """Finishes messages that are alike: see `Outgoing.like`.

    Attributes:
        headers: of the first of them, without a signature.
        content_type, content_encoding: of them.
    """

    def __init__(
        self,
        headers: dict[str, Any],
        content: tuple[Any, Any],
        text: SignedText,
        signs: SignatureForm | None,
        keys: PayloadKeys | None,
    ) -> None:
        self.headers, self.content_type, self.content_encoding = headers, *content
        self._text, self._signs, self._keys = text, signs, keys

    @property
    def signs(self) -> bool:
        """Whether messages are signed."""
        return self._signs is not None

    def written(self, headers: Mapping[str, Any], body: bytes) -> "Written":
        """A message that has these headers in the place of those of the first one; `body`: as it was written."""
        text, same = self._text.of_headers(headers), ""
        if self._keys is not None:
            same, body = self._keys.same(body), self._keys.seal(body, bound_to(text))
        return Written(body, "" if self._signs is None else self._signs.of_text(text, body), same)

    def finished(self, headers: Mapping[str, Any], body: bytes) -> Parts:
        """All parts of one."""
        body, signature, same = self.written(headers, body)
        signed = {SIGNATURE: signature} if signature else {}
        return Parts({**self.headers, **headers, **signed}, self.content_type, self.content_encoding, body, same)


class Written(NamedTuple):
    """The parts of a message that depend on its arguments, as they go out.

    Attributes:
        signature: empty: nobody signs.
        same: see `Parts`.
    """

    body: bytes
    signature: str
    same: str


def _told(body: bytes) -> str:
    """The header that tells the main process of a worker what follows the job, of a body that it does not open."""
    if body.endswith(_ALONE):
        return NOTHING_FOLLOWS
    _, _, options = json.loads(body)
    return ",".join(name for name in STEPS if (options or {}).get(name)) or NOTHING_FOLLOWS
