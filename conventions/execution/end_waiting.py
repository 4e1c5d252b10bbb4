"""`WaitingEnds`: ends messages that wait, each with a row; a batch counts its chunks, and a schedule waits for none of them (R22)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from conventions.broker.batch_membership import Join, Member
from conventions.broker.header_names import BATCH, OURS, SIGNATURE, SIGNED
from conventions.broker.signature import without_unsigned
from conventions.broker.waiting_messages import End, Waiting
from conventions.core.error_text import FailureText
from conventions.execution.application import Application
from conventions.execution.batch_follow_up import follow_up, join_of
from conventions.execution.record_interrupted import record_kept
from conventions.execution.waiting_event import waiting_event
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.records.journal import Event


class WaitingEnds:
    """Ends messages in one way.

    Args:
        app: the application.
        kind: of their rows; those that are dead have letters with their messages, which the caller believes.
        error: the name of the reason.
        said: the reason, in which `{queue}` is the queue of each.
    """

    def __init__(self, app: Application, kind: Literal["purged", "cancelled", "dead"], error: str, said: str) -> None:
        self._app, self._kind, self._error, self._said = app, kind, error, said
        self._batches: dict[str, Member] = {}  # one member of each that lost some

    def end(self, found: Sequence[Waiting]) -> list[bool]:
        """End these. Returns for each whether it ended: it had not moved since it was seen.

        Raises:
            JournalFull, RedisError: of what ended, each has its row.
        """
        described = [self._describe(one) for one in found]
        record_kept(self._app, [event for _, event, _ in described])
        signatures = self._app.store.entry_signatures
        ends = [
            End(one.message_id, event.encode(signatures), join.encode() if join else "")
            for one, event, join in described
        ]
        settlements = [
            Settlement(request, "released", event, claimed=False, join=join) for request, event, join in described
        ]
        went = self._app.port.end(
            list(zip(found, ends, strict=True)),
            lambda: self._app.claims.settle(settlements),
            self._app.broker.journal_limit,
        )
        self._batches |= {
            join.member.batch_id: join.member for (*_, join), gone in zip(described, went, strict=True) if gone and join
        }
        return went

    def follow_up(self) -> None:
        """Send what follows batches that have ended by this. Last, so that it does not go with the rest."""
        for member in self._batches.values():
            follow_up(self._app, member)

    def _describe(self, one: Waiting) -> tuple[ClaimRequest, Event, Join | None]:
        event = replace(
            waiting_event(
                one.headers, one.message_id, self._kind, queue=one.queue, generation=one.generation, attempt=one.attempt
            ),
            token=f"{TOKENS[self._kind]}-{one.score.decode()}",  # the same where it is done again
            failure=FailureText(self._error, self._said.replace("{queue}", one.queue), "", ""),
        )
        if self._kind == "dead":
            event = replace(event, **_kept_in_letter(one))
        request = ClaimRequest("", "", event.token, event.message_id, "")
        joins: Literal["dead", "cancelled"] = "dead" if self._kind == "dead" else "cancelled"
        return request, event, join_of(self._app, Member.read(one.headers.get(BATCH)), joins)


def _kept_in_letter(one: Waiting) -> dict[str, Any]:
    headers = without_unsigned(one.headers)
    message = json.loads(one.payload) | {"headers": headers}
    ours = {name: headers[name] for name in OURS if name in headers and name not in (SIGNATURE, SIGNED)}
    return {"attempt": max(one.attempt - 1, 0), "arguments": one.arguments, "headers": ours, "message": message}


TOKENS = {"purged": "purge", "cancelled": "cancel", "dead": "dead"}
